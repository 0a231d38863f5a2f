"""The transformer: its size, its causality, its initial values, and what it learns."""

import math

import pytest
import torch
from torch import Tensor, nn

from knet_hvd.data.text import load_text
from knet_hvd.models import build_model, num_parameters
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder

LENGTH, VOCABULARY = 16, 30


def small(width: float = 0.2) -> nn.Sequential:
    return build_model("transformer", in_shape=(LENGTH,), num_classes=VOCABULARY, width=width)


def characters(rows: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(VOCABULARY, (rows, LENGTH), generator=generator)


def test_the_default_has_the_documented_size() -> None:
    model = build_model("transformer", in_shape=(64,), num_classes=100)
    assert num_parameters(model) == 1_279_780
    names = [name for name, _ in model.named_children()]
    assert names == ["embedding", "layer1", "layer2", "layer3", "layer4", "head"]


@pytest.mark.parametrize(("width", "features"), [(0.1, 32), (0.4, 64), (1.0, 160), (2.0, 320)])
def test_width_changes_the_number_of_heads(width: float, features: int) -> None:
    model = small(width)
    assert model[1](model[0](characters())).shape == (3, LENGTH, features)


def test_every_position_gets_logits_and_every_parameter_a_gradient() -> None:
    model = small()
    logits = model(characters())
    assert logits.shape == (3, LENGTH, VOCABULARY)
    logits.square().sum().backward()
    assert all(bool(p.grad is not None and (p.grad != 0).any()) for p in model.parameters())


def test_a_later_character_changes_no_earlier_logit() -> None:
    torch.manual_seed(0)
    model = small()
    first = characters()
    logits = model(first)
    for position in (1, LENGTH // 2, LENGTH - 1):
        second = first.clone()
        second[:, position:] = (second[:, position:] + 1) % VOCABULARY
        changed = model(second)
        assert torch.equal(changed[:, :position], logits[:, :position])
        assert not torch.isclose(changed[:, position:], logits[:, position:]).all(dim=2).any()


def test_an_earlier_character_reaches_the_last_logit() -> None:
    torch.manual_seed(0)
    model = small()
    first = characters()
    second = first.clone()
    second[:, 0] = (second[:, 0] + 1) % VOCABULARY
    assert not torch.isclose(model(second)[:, -1], model(first)[:, -1]).all()


def test_a_shorter_sequence_has_the_logits_of_the_longer_ones_start() -> None:
    torch.manual_seed(0)
    model = small()
    long = characters()
    torch.testing.assert_close(model(long[:, :5]), model(long)[:, :5])


def test_a_longer_sequence_than_there_are_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 16 characters, got 17"):
        small()(torch.zeros(1, LENGTH + 1, dtype=torch.int64))


def test_initial_values_are_those_of_gpt_2() -> None:
    torch.manual_seed(0)
    model = build_model("transformer", in_shape=(64,), num_classes=100)
    for name, parameter in model.named_parameters():
        if "norm" in name or name.startswith("head.0") or name.endswith("bias"):
            assert torch.equal(parameter, torch.full_like(parameter, float("weight" in name)))
            continue
        scaled = "project" in name or "contract" in name
        expected = 0.02 / math.sqrt(8) if scaled else 0.02
        assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name


def test_a_stage_has_the_initial_values_of_one_process() -> None:
    torch.manual_seed(3)
    whole = small()
    following = torch.rand(3)
    builder = BlockBuilder(small)
    for own in (range(1), range(1, 3), range(3, 6)):
        torch.manual_seed(3)
        blocks = builder.build(own)
        assert torch.equal(torch.rand(3), following), "the generator went elsewhere"
        for key, value in blocks.state_dict().items():
            assert torch.equal(value, whole.state_dict()[key]), key


def test_cut_anywhere_it_is_the_same_network() -> None:
    model = small()
    whole = model(characters())
    for cut in range(1, len(model)):
        assert torch.equal(model[cut:](model[:cut](characters())), whole)


def test_some_steps_on_text_learn_more_than_how_often_characters_occur() -> None:
    text = load_text(window=32)
    inputs, targets = text.train.inputs, text.train.targets
    counts = torch.bincount(targets[torch.arange(len(targets))].flatten()).double()
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * shares.log()).sum())
    assert 3.0 < entropy < 3.6, "of English with its code"
    torch.manual_seed(0)
    model = build_model(
        "transformer", in_shape=text.in_shape, num_classes=text.num_classes or 0, width=0.4
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(120):
        rows = torch.randint(len(targets), (16,), generator=generator)
        loss = text.loss(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] == pytest.approx(math.log(text.num_classes or 0), abs=0.2)
    assert sum(losses[-20:]) / 20 < entropy - 0.4

"""Synthetic gradients as published, and how far a stage follows them."""

import copy
from typing import Any

import pytest
import torch

from knet_hvd.pipeline.decouplers import Conditioned, Synthetic, Use
from knet_hvd.pipeline.decouplers.synthetic.published import SyntheticGradient, compare
from knet_hvd.pipeline.optimizers import make_optimizer
from knet_hvd.pipeline.stage import Stage
from tests.single.pipeline.stages import (
    batch_of,
    draw_parameters,
    gradients,
    make_batch,
    make_stage,
    through_checkpoint,
    true_gradients,
)

SMALL = {"hidden_layers": 1, "hidden_units": 8, "kernel_size": 3}


def source_of(decoupler: Synthetic) -> SyntheticGradient:
    source = decoupler.build((12,), 10)
    assert isinstance(source, SyntheticGradient)
    return source


def learn_to_predict(source: SyntheticGradient, rounds: int = 300) -> dict[str, float]:
    """Teach gradients that depend on the targets, and return the last metrics."""
    stage = make_stage()
    stage.optimizer = None
    table = torch.randn(10, 12)
    for round_ in range(rounds):
        torch.manual_seed(round_)
        targets = torch.randint(10, (32,))
        batch = batch_of(torch.randn(32, 5))
        batch.targets = targets
        target = source.forward(stage, batch).detach() + table[targets]
        assert source.backward_now(stage, batch)
        assert not source.backward_late(stage, batch, target / 32)
        stage.blocks.zero_grad()
    return {name: float(value) for name, value in source.metrics.items()}


def test_a_synthesizer_that_sees_targets_learns_what_depends_on_them() -> None:
    torch.manual_seed(0)
    blind = learn_to_predict(source_of(Synthetic(hidden_layers=0, learning_rate=0.03)))
    seeing = learn_to_predict(source_of(Conditioned(hidden_layers=0, learning_rate=0.03)))
    assert seeing["cosine_similarity"] > 0.99 > blind["cosine_similarity"]
    assert seeing["norm_ratio"] == pytest.approx(1, abs=0.05)
    assert seeing["synthesizer_loss"] < blind["synthesizer_loss"] / 10


@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_a_stage_learns_at_once_from_the_synthetic_gradient(from_checkpoint: bool) -> None:
    stage, batch, source = make_stage(), make_batch(), source_of(Synthetic(**SMALL))
    draw_parameters(source, std=1.0)
    hidden = source.forward(stage, batch).detach()
    with torch.no_grad():
        prediction = copy.deepcopy(source.modules[0])(hidden, batch.targets)
    expected = true_gradients(stage, batch, prediction / 8)
    assert source.backward_now(stage, batch)
    actual = [batch.take_input_gradient(), *gradients(stage)]
    for one, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, want)
    if from_checkpoint:
        batch = through_checkpoint(source, stage, batch)
    assert not source.backward_late(stage, batch, prediction / 8)
    assert float(source.metrics["cosine_similarity"]) == pytest.approx(1)


def trained_scale(depends_on_output: bool) -> float:
    """Return the scale after 300 gradients, which the output tells or does not."""
    torch.manual_seed(0)
    source = source_of(Synthetic(hidden_layers=0, learning_rate=0.01))
    stage = make_stage()
    scales = []
    for round_ in range(300):
        torch.manual_seed(round_)
        batch = batch_of(torch.randn(32, 5), log_metrics=False)
        output = source.forward(stage, batch).detach()
        source.backward_now(stage, batch)
        scales.append(source.lr_scale)
        target = output if depends_on_output else torch.randn(32, 12)
        source.backward_late(stage, batch, target / 32)
        stage.blocks.zero_grad()
    assert scales[0] == 0
    return scales[-1]


def test_a_stage_moves_as_far_as_its_synthesizer_is_right() -> None:
    assert trained_scale(depends_on_output=True) > 0.9
    assert trained_scale(depends_on_output=False) < 0.05


def test_as_published_a_stage_moves_at_its_full_rate() -> None:
    source = source_of(Synthetic(hidden_layers=0, scale_by_quality=False))
    stage, batch = make_stage(), make_batch()
    source.forward(stage, batch)
    source.backward_now(stage, batch)
    assert source.lr_scale == 1
    synthesizer = sum(1 for _ in source.modules[0].parameters())
    assert sum(1 for _ in source.modules.parameters()) == synthesizer, "nothing else learns"


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_a_scale_is_of_this_update_only(name: Any) -> None:
    stage: Stage = make_stage()
    stage.optimizer = make_optimizer(stage.blocks, name, 0.1)
    moved = []
    for scale in (1.0, 0.25):
        before = torch.cat([p.detach().flatten() for p in stage.blocks.parameters()])
        for parameter in stage.blocks.parameters():
            parameter.grad = torch.ones_like(parameter)
        if name == "momentum":
            stage.optimizer.state.clear()
        stage.update(scale)
        after = torch.cat([p.detach().flatten() for p in stage.blocks.parameters()])
        moved.append(after - before)
        assert all(group["lr"] == 0.1 for group in stage.optimizer.param_groups)
    torch.testing.assert_close(moved[1], moved[0] / 4)


def test_comparing_gradients() -> None:
    ones = torch.ones(3, 4)
    same = compare(2 * ones, ones)
    assert float(same["cosine_similarity"]) == pytest.approx(1)
    assert float(same["norm_ratio"]) == pytest.approx(2)
    zero = compare(torch.zeros(3, 4), ones)
    assert (float(zero["cosine_similarity"]), float(zero["norm_ratio"])) == (0, 0)
    images = torch.randn(2, 3, 4, 5)
    other = images.to(memory_format=torch.channels_last)
    assert float(compare(images, other)["cosine_similarity"]) == pytest.approx(1)


def test_the_limit_of_a_delay() -> None:
    def limits(decoupler: Synthetic) -> list[int]:
        return [decoupler.delay_limit(later) for later in (1, 3, 6)]

    assert limits(Synthetic()) == [4, 4, 4]
    assert limits(Synthetic(targets="true")) == [4, 4, 7]
    assert limits(Conditioned(targets="corrected")) == [2, 4, 7]
    assert limits(Synthetic(max_delay=3)) == [3, 3, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Synthetic(kernel_size=4), "expected an odd number, got 4"),
        (lambda: Synthetic(learning_rate=0), "learning_rate: expected > 0"),
        (lambda: Synthetic(max_delay=0), "max_delay: expected at least 1, got 0"),
        (lambda: Conditioned().build((3,), None), "conditioned: needs targets that are classes"),
        (
            lambda: Conditioned(targets="corrected").check(
                Use(num_replicas=2, saves_checkpoints=True)
            ),
            "expected no replicas together with checkpoints, got 2",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

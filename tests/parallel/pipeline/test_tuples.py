"""Several tensors across a cut, of all kinds, and what only some of them have: gradients."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.errors import KnetError
from knet_hvd.pipeline import Backprop, Delayed, Local, Pipeline
from knet_hvd.pipeline.decouplers import Decoupler

ROWS, LENGTH, WORDS = 8, 6, 11


class Layer(nn.Module):
    """Attention under a mask, as layers of users take it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor, padding: Tensor, mask: Tensor) -> Tensor:
        query, key, value = self.mix(self.norm(x)).chunk(3, dim=-1)
        weights = query @ key.transpose(1, 2) / 8**0.5 + mask
        weights = weights.masked_fill(padding[:, None, :], float("-inf")).softmax(-1)
        y: Tensor = x + self.out(weights @ value)
        return y


class Words(nn.Module):
    """A network whose cuts are crossed by activations, a bool, a float mask and the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, 8)
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), -1e4).triu(1), persistent=False)
        self.layers = nn.ModuleList(Layer() for _ in range(4))
        self.head = nn.Linear(8, WORDS)

    def forward(self, tokens: Tensor, padding: Tensor) -> Tensor:
        x = self.embed(tokens)
        mask = self.mask[: tokens.shape[1], : tokens.shape[1]] * 1.0
        for layer in self.layers:
            x = layer(x, padding, mask)
        y: Tensor = self.head(x) + functional.one_hot(tokens, WORDS)
        return y


def batch(step: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return tokens, some of them padding, in sequences whose length differs; and targets."""
    generator = torch.Generator().manual_seed(step)
    shape = ROWS - step % 2, LENGTH - step % 3
    tokens = torch.randint(WORDS, shape, generator=generator)
    padding = torch.zeros(shape, dtype=torch.bool)
    padding[0, -1] = True
    return (tokens, padding), (3 * tokens + 1) % WORDS


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def pipeline_of(decoupler: Decoupler, network: nn.Module, split: list[str]) -> Pipeline:
    return Pipeline(
        network,
        split=split,
        example=batch(0)[0],
        loss=loss,
        optimizer=sgd,
        decoupler=decoupler,
        timeout_s=30.0,
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_locked_stages_compute_what_a_plain_loop_does(kind: torch.dtype) -> None:
    torch.manual_seed(2)
    whole = Words().to(kind)
    optimizer = sgd(list(whole.parameters()))
    expected = []
    for step in range(12):
        (tokens, padding), targets = batch(step)
        value = loss(whole(tokens, padding), targets)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        expected.append(value.item())
    torch.manual_seed(2)
    split = ["layers.1", "layers.2", "layers.3"]
    pipeline = pipeline_of(Backprop(), Words().to(kind), split)
    losses = [pipeline.step(*batch(step)) for step in range(12)]
    state = pipeline.export()
    pipeline.close()
    assert losses == pytest.approx(expected, abs=1e-5 if kind != torch.bfloat16 else 0.02)
    if state is not None:
        assert sorted(state) == sorted(whole.state_dict())
        for name, value in whole.state_dict().items():
            assert state[name].dtype == kind
            if kind != torch.bfloat16:
                torch.testing.assert_close(state[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "decoupler", [Delayed(), Delayed(recompute=False, predict_weights=True)], ids=str
)
def test_late_gradients_of_tuples(decoupler: Decoupler) -> None:
    torch.manual_seed(2)
    pipeline = pipeline_of(decoupler, Words(), ["layers.1", "layers.2", "layers.3"])
    for step in range(150):
        value = pipeline.step(*batch(step))
    pipeline.close()
    assert value < 1.0, "it began at 2.5"


def test_a_local_loss_wants_one_tensor() -> None:
    text = "local: expected one tensor of floating point between"
    with pytest.raises((ValueError, KnetError), match=text):
        pipeline_of(Local(), Words(), ["layers.1", "layers.2", "layers.3"])

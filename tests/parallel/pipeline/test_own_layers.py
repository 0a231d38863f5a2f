"""A user's own local heads and synthesizers, and the built-in ones, for sequences."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from knet_hvd.pipeline import Conditioned, Local, Pipeline, Synthetic
from knet_hvd.pipeline.decouplers import Decoupler

VALUES = 6


def sequences() -> TensorDataset:
    """Return sequences whose target at each position is the number there, plus one."""
    generator = torch.Generator().manual_seed(3)
    numbers = torch.randint(VALUES, (64, 5), generator=generator)
    return TensorDataset(numbers, (numbers + 1) % VALUES)


def model() -> nn.Sequential:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Embedding(VALUES, 16), layer, nn.Linear(16, 16), nn.Linear(16, VALUES))


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


def head(shape: tuple[int, ...]) -> nn.Module:
    assert shape == (5, 16)
    return nn.Sequential(nn.LayerNorm(16), nn.Linear(16, VALUES))


def zero_at_first(shape: tuple[int, ...]) -> nn.Module:
    last = nn.Linear(shape[-1], shape[-1])
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return last


class SeesTargets(nn.Module):
    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.words = nn.Embedding(VALUES, shape[-1])
        self.last = zero_at_first(shape)

    def forward(self, activation: Tensor, targets: Tensor) -> Tensor:
        prediction: Tensor = self.last(activation + self.words(targets))
        return prediction


@pytest.mark.parametrize(
    "decoupler",
    [
        Local(),
        Local(head=head),
        Synthetic(),
        Synthetic(synthesizer=zero_at_first),
        Conditioned(synthesizer=SeesTargets),
    ],
    ids=["local", "own head", "synthetic", "own synthesizer", "conditioned, own"],
)
def test_sequences_are_learned(decoupler: Decoupler) -> None:
    data = sequences()
    torch.manual_seed(0)
    pipeline = Pipeline(
        model(),
        example=data[:1][0],
        loss=loss,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01),
        decoupler=decoupler,
        timeout_s=60.0,
    )
    before = pipeline.evaluate(DataLoader(data, batch_size=32))
    for _ in range(30):
        for inputs, targets in DataLoader(data, batch_size=32):
            pipeline.step(inputs, targets)
    after = pipeline.evaluate(DataLoader(data, batch_size=32))
    pipeline.close()
    assert after < 0.5 * before


@pytest.mark.parametrize(
    ("decoupler", "text"),
    [
        (Local(head=lambda shape: 3), "head: expected a function of the shape"),  # type: ignore
        (Synthetic(synthesizer=lambda shape: nn.Linear(16, 3)), "synthesizer: expected .2, 5, 16."),
    ],
    ids=["no module", "another shape"],
)
def test_layers_that_do_not_fit(decoupler: Decoupler, text: str) -> None:
    """Told by the first stage, and by the others in its words."""
    data = sequences()

    def train() -> None:
        pipeline = Pipeline(
            model(),
            example=data[:1][0],
            loss=loss,
            optimizer=torch.optim.Adam,
            decoupler=decoupler,
            timeout_s=60.0,
        )
        for _ in range(3):
            pipeline.step(data[:2][0], data[:2][1])
            pipeline.drain()

    with pytest.raises(Exception, match=text):
        train()

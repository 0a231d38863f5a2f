"""The pipeline as a library: a network, a loss and data that no job knows."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.comm import World
from knet_hvd.pipeline import Backprop, Conditioned, Delayed, Local, Pipeline, Synthetic
from knet_hvd.pipeline.decouplers import Decoupler
from tests.parallel.mpi import world

__all__ = ["world"]
LENGTH, CLASSES, ROWS = 8, 7, 16


def network() -> nn.Sequential:
    """Return a network over sequences: every cut is [sequence, features]."""
    blocks = [nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 12), nn.GELU()) for _ in range(4)]
    return nn.Sequential(nn.Embedding(CLASSES, 12), *blocks, nn.Linear(12, CLASSES))


def loss(output: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, 1), targets.flatten())


def batch(step: int) -> tuple[Tensor, Tensor]:
    """Return sequences, and for each position a target that its token tells."""
    tokens = torch.randint(CLASSES, (ROWS, LENGTH), generator=torch.Generator().manual_seed(step))
    return tokens, (3 * tokens + 1) % CLASSES


def train(decoupler: Decoupler, steps: int, rate: float = 0.01) -> tuple[dict[str, Tensor], float]:
    """Return this rank's parameters after so many steps, and the loss on the last batch."""
    with Pipeline(
        network,
        example=batch(0)[0],
        loss=loss,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=rate),
        decoupler=decoupler,
        num_classes=CLASSES,
        seed=4,
        deterministic=True,
    ) as pipeline:
        for step in range(steps):
            pipeline.step(*batch(step))
        value = pipeline.evaluate([batch(steps - 1)])
    return pipeline.stage.blocks.state_dict(), value


def test_locked_stages_compute_what_one_process_does(world: World) -> None:
    torch.manual_seed(4)
    whole = network()
    optimizer = torch.optim.AdamW(whole.parameters(), lr=0.01)
    for step in range(20):
        inputs, targets = batch(step)
        loss(whole(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = whole.state_dict()
    parameters, _ = train(Backprop(), steps=20)
    for name, value in parameters.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "decoupler",
    [
        Local(),
        Delayed(),
        Delayed(recompute=False),
        Synthetic(hidden_layers=0, targets="corrected"),
        Conditioned(hidden_units=32),
    ],
    ids=str,
)
def test_every_decoupler_learns_sequences(world: World, decoupler: Decoupler) -> None:
    # In four stages gradients are three updates old: weights have to move more slowly.
    late = world.size > 2
    _, value = train(decoupler, steps=450 if late else 150, rate=0.003 if late else 0.01)
    assert value < 0.4, "it began at 1.95"

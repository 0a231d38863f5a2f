"""Mistakes of users' scripts: one clear line on every rank, and no rank that waits."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.errors import KnetError
from knet_hvd.pipeline import Local, Pipeline
from tests.parallel.mpi import needs_mpi_ranks

pytestmark = needs_mpi_ranks(2)
SOON_S = 10.0


class Grows(nn.Module):
    """Returns another shape than it did for the example."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x], dim=1) if x.max() > 50 else x


def network() -> nn.Sequential:
    return nn.Sequential(*[nn.Linear(6, 6) for _ in range(6)])


def pipeline_of(model: Any = None, **settings: Any) -> Pipeline:
    chosen: dict[str, Any] = {
        "example": torch.zeros(1, 6),
        "loss": functional.cross_entropy,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        "timeout_s": 60.0,
        **settings,
    }
    return Pipeline(network() if model is None else model, **chosen)


@contextmanager
def every_rank_says(text: str) -> Iterator[None]:
    """Expect an error with a text on every rank, soon."""
    start_s = time.monotonic()
    with pytest.raises((KnetError, ValueError, TypeError), match=text):
        yield
    assert time.monotonic() - start_s < SOON_S


INPUTS, TARGETS = torch.ones(8, 6), torch.arange(8) % 6


def test_ranks_that_draw_other_targets() -> None:
    pipeline = pipeline_of()
    with every_rank_says(r"targets of step 0 differ between rank \d and rank \d"):
        pipeline.step(INPUTS, TARGETS.roll(pipeline.rank))


def test_a_loss_that_is_no_scalar() -> None:
    pipeline = pipeline_of(loss=lambda output, targets: output.sum(1))
    with every_rank_says(r"loss: expected a scalar, got \[8\]"):
        pipeline.step(INPUTS, TARGETS)


def test_a_model_that_returns_another_shape_than_for_the_example() -> None:
    from mpi4py import MPI

    cuts = list(range(1, MPI.COMM_WORLD.Get_size()))
    pipeline = pipeline_of([Grows(), *network()], cuts=cuts)
    pipeline.step(INPUTS, TARGETS)
    with every_rank_says(r"activations from rank 0 to rank 1: expected \[8, 6\].*got \[8, 12\]"):
        pipeline.step(100 * INPUTS, TARGETS)


@pytest.mark.parametrize("decoupler", ["backprop", "local"])
@pytest.mark.parametrize("first_to_end", [0, 1])
def test_loaders_that_end_at_different_times(decoupler: str, first_to_end: int) -> None:
    pipeline = pipeline_of(decoupler=decoupler)
    with every_rank_says("loaders have to end at the same time on every rank"):
        for _ in range(2 if pipeline.rank == first_to_end else 12):
            pipeline.step(INPUTS, TARGETS)
        pipeline.evaluate([(INPUTS, TARGETS)])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: pipeline_of([nn.Linear(6, 6)]),
            "stages: expected 1 to 1, the number",
        ),
        (lambda: pipeline_of(cuts=[1, 1, 1, 1, 1]), r"cuts: expected \d for \d stages, got 5"),
        (lambda: pipeline_of(cuts="best"), "cuts: expected equal, measured or numbers"),
        (lambda: pipeline_of(decoupler="psychic"), "decoupler: expected one of backprop"),
        (lambda: pipeline_of(targets="guess"), "targets: expected shared or send, got 'guess'"),
        (lambda: pipeline_of(optimizer=lambda p: p), "optimizer: expected a function that returns"),
        (lambda: pipeline_of(clip_grad_norm=0.0), "clip_grad_norm: expected > 0, got 0.0"),
        (lambda: pipeline_of(example=torch.zeros(0, 6)), "example: expected"),
        (
            lambda: pipeline_of(microbatches=4, decoupler=Local()),
            "expected 1 with local, whose",
        ),
    ],
)
def test_settings_that_do_not_fit(make: Callable[[], Pipeline], text: str) -> None:
    with every_rank_says(text):
        make()


def test_a_parameter_in_two_stages() -> None:
    layers = list(network())
    layers[-1].weight = layers[0].weight
    with every_rank_says("got 0.weight in stage 0 and the same parameter as 5.weight in stage"):
        pipeline_of(nn.Sequential(*layers))


def test_ranks_with_other_models() -> None:
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.Get_rank()
    with every_rank_says("disagree on the model. 5.weight: torch.float32"):
        pipeline_of(nn.Sequential(*list(network())[:-1], nn.Linear(6, 6 + rank)))


def test_a_batch_that_is_larger_than_the_first() -> None:
    pipeline = pipeline_of()
    pipeline.step(INPUTS[:4], TARGETS[:4])
    with every_rank_says("give batch_size=8, the largest there is"):
        pipeline.step(INPUTS, TARGETS)


def test_targets_that_travel() -> None:
    """Only the first stage has data; the others loop as often."""
    torch.manual_seed(0)
    expected = pipeline_of(network())
    losses = [expected.step(INPUTS, TARGETS) for _ in range(4)]
    evaluated = expected.evaluate([(INPUTS, TARGETS)])
    expected.close()
    torch.manual_seed(0)
    pipeline = pipeline_of(network(), targets="send")
    loader = [(INPUTS, TARGETS)] * 2 if pipeline.rank == 0 else None
    found = [pipeline.step(x, y) for _ in range(2) for x, y in pipeline.batches(loader)]
    assert found == losses
    assert pipeline.evaluate(loader) == pytest.approx(evaluated)
    pipeline.close()

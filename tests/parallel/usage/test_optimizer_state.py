"""The optimizer's own state: learning rates, checkpoints, broadcasts."""

import copy
import warnings
from typing import Any

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.averages import all_gradients, ternary_mean
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import backward, copies, make_parameters, needs_ranks
from tests.parallel.optimizers import EXCHANGES, PATHS, run_steps, sgd, wrap

SHAPES = [(30, 40), (700,), (9,)]
CONFIG = TernaryConfig(min_values=1)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", EXCHANGES)
def test_a_scheduler_made_before_or_after_wrapping(path: str, when: str) -> None:
    parameters = make_parameters(SHAPES)
    optimizer: Any = sgd(parameters, lr=0.5)
    if when == "before":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer = wrap(optimizer, parameters, path, CONFIG)
    if when == "after":
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for step in range(3):
        before = copies(parameters)
        backward(parameters, step)
        optimizer.step()
        gradients = all_gradients(parameters["p0"], 0, step)
        expected = ternary_mean(gradients, CONFIG, stream=0, step=step)
        moved = before[0] - parameters["p0"].detach()
        torch.testing.assert_close(moved, 0.5 ** (step + 1) * expected)
        with warnings.catch_warnings():
            warnings.simplefilter("error" if when == "after" else "ignore")
            scheduler.step()
        optimizer.zero_grad()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5**4)


@pytest.mark.parametrize("path", PATHS)
def test_the_optimizer_state_goes_through_a_checkpoint(path: str) -> None:
    ternary = TernaryConfig(min_values=10_000)  # exact means: only Adam has a state
    straight, begun, resumed = (make_parameters(SHAPES) for _ in range(3))
    one = wrap(torch.optim.Adam(straight.values(), lr=0.1), straight, path, ternary)
    run_steps(one, straight, range(4))
    two = wrap(torch.optim.Adam(begun.values(), lr=0.1), begun, path, ternary)
    run_steps(two, begun, range(2))
    with torch.no_grad():
        for a, b in zip(resumed.values(), begun.values(), strict=True):
            a.copy_(b)
    three = wrap(torch.optim.Adam(resumed.values(), lr=0.7), resumed, path, ternary)
    three.load_state_dict(copy.deepcopy(two.state_dict()))
    assert three.param_groups[0]["lr"] == 0.1
    run_steps(three, resumed, range(2, 4))
    for a, b in zip(straight.values(), resumed.values(), strict=True):
        torch.testing.assert_close(a, b)
    plain = torch.optim.Adam(make_parameters(SHAPES).values(), lr=0.1)
    plain.load_state_dict(three.state_dict())  # the format of the wrapped class


@needs_ranks(2)
@pytest.mark.parametrize("where", ["nowhere", "rank 0 only"])
@pytest.mark.parametrize("path", PATHS)
def test_broadcast_of_the_optimizer_state(path: str, where: str) -> None:
    """As after a checkpoint that rank 0 alone has read."""
    parameters = make_parameters(SHAPES)
    plain = torch.optim.SGD(parameters.values(), lr=0.1 + hvd.rank(), momentum=0.9)
    if where == "rank 0 only" and hvd.rank() == 0:
        backward(parameters)
        plain.step()
        plain.zero_grad()
    optimizer = wrap(plain, parameters, path, CONFIG)
    if where == "rank 0 only" and path != "allreduce":
        assert bool(optimizer.state_dict()["state"]) == (hvd.rank() == 0)
    hvd.broadcast_parameters(parameters, root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer.zero_grad()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    run_steps(optimizer, parameters, range(2))
    assert_same_on_all_ranks(parameters.values())
    buffers = [optimizer.state[p]["momentum_buffer"] for p in parameters.values()]
    assert_same_on_all_ranks(buffers)

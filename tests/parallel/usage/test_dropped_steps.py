"""A script that drops a step, as for a gradient that is not finite, and continues."""

import warnings
from typing import Any

import horovod.torch as hvd
import pytest

from knet_hvd import KnetError, TernaryConfig
from tests.parallel.averages import assert_averaged, every_gradient
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import backward, needs_ranks
from tests.parallel.optimizers import EXCHANGES, PATHS, finish_step, make_wrapped

SHAPES = [(30, 40), (700,)]
CONFIG = TernaryConfig(min_values=1)
pytestmark = needs_ranks(2)


def drop(parameters: dict[str, Any], how: str, optimizer: Any) -> None:
    if how == "optimizer":
        optimizer.zero_grad()
    for parameter in parameters.values():
        if how == "model":
            parameter.grad = None
        elif how == "in place":
            parameter.grad.zero_()


@pytest.mark.parametrize("how", ["optimizer", "model", "in place"])
@pytest.mark.parametrize("path", PATHS)
def test_the_step_after_a_dropped_one_averages_its_gradients(path: str, how: str) -> None:
    parameters, optimizer = make_wrapped(SHAPES, path, CONFIG)
    backward(parameters, step=0)
    optimizer.synchronize()
    drop(parameters, how, optimizer)
    backward(parameters, step=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if path in EXCHANGES else "ignore")
        optimizer.step()
    for parameter in parameters.values():
        assert_same_on_all_ranks([parameter.grad, parameter])
    assert_averaged(parameters, every_gradient(parameters, 1), CONFIG, step=1, path=path)
    optimizer.zero_grad()


def step_cleared(exchange: str) -> tuple[dict[str, Any], Any]:
    """Return parameters whose first averages were dropped, and their optimizer."""
    parameters, optimizer = make_wrapped(SHAPES, exchange, CONFIG)
    backward(parameters)
    optimizer.synchronize()
    optimizer.zero_grad()
    return parameters, optimizer


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_step_after_clearing_averages_zeros(exchange: str) -> None:
    parameters, optimizer = step_cleared(exchange)
    if hvd.rank() == 0:  # the other ranks have nothing for this step
        backward(parameters, step=1)
    optimizer.step()
    assert_same_on_all_ranks(p.grad for p in parameters.values())
    assert all(p.grad.any() for p in parameters.values())
    optimizer.zero_grad()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_local_gradients_are_no_step(exchange: str) -> None:
    parameters, optimizer = step_cleared(exchange)
    backward(parameters, step=1)
    with (
        optimizer.skip_synchronize(),
        pytest.raises(KnetError, match=r"Call optimizer\.synchronize\(\) before it"),
    ):
        optimizer.step()
    assert all(bool((p == 1).all()) for p in parameters.values())
    optimizer.synchronize()
    finish_step(optimizer)
    assert_same_on_all_ranks(parameters.values())

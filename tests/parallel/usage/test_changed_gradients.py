"""Gradients that a script changes between backward and the end of their exchange."""

import os
from collections.abc import Callable

import pytest
import torch
from torch import nn

from knet_hvd import KnetError, TernaryConfig
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import backward, make_parameters, needs_ranks
from tests.parallel.optimizers import (
    EXCHANGES,
    PATHS,
    finish_step,
    make_wrapped,
    run_steps,
    sgd,
    wrap,
)

CONFIG = TernaryConfig(min_values=8)  # the second parameter crosses in floating point
Gradients = list[nn.Parameter]
pytestmark = needs_ranks(2)


def clip_norm(parameters: Gradients) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, 0.25)


def clip_norm_of_small_gradients(parameters: Gradients) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, 1e9)


def clip_values(parameters: Gradients) -> None:
    torch.nn.utils.clip_grad_value_(parameters, 0.1)


def add_noise(parameters: Gradients) -> None:
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.add_(torch.randn_like(parameter), alpha=1e-3)


def mask_last(parameters: Gradients) -> None:
    gradient = parameters[-1].grad
    assert gradient is not None
    gradient[0] = 0.0


def clear(parameters: Gradients) -> None:
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.zero_()


def remove(parameters: Gradients) -> None:
    for parameter in parameters:
        parameter.grad = None


def replace(parameters: Gradients) -> None:
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad = parameter.grad * 0.5


CHANGES = {
    clip_norm: "changed in place",
    clip_norm_of_small_gradients: "changed in place",
    clip_values: "changed in place",
    add_noise: "changed in place",
    mask_last: "changed in place",
    clear: "changed in place",
    remove: "removed",
    replace: "replaced",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("path", PATHS)
def test_changes_during_the_exchange_are_refused(
    path: str, change: Callable[[Gradients], None]
) -> None:
    if (path, change) == ("allreduce", remove):
        pytest.skip("Horovod's optimizer has an error of its own")
    # Names of their own: a broken step leaves operations of these names behind.
    names = [f"{os.environ['PYTEST_CURRENT_TEST']}.{i}" for i in range(2)]
    parameters = dict(zip(names, make_parameters([(30, 40), (7,)]).values(), strict=True))
    optimizer = wrap(sgd(parameters), parameters, path, CONFIG)
    run_steps(optimizer, parameters, range(2))
    backward(parameters, 2)
    change(list(parameters.values()))
    with pytest.raises(KnetError, match=CHANGES[change]) as caught:
        optimizer.step()
    assert "optimizer.synchronize()" in str(caught.value)
    assert "with optimizer.skip_synchronize(): optimizer.step()" in str(caught.value)


@pytest.mark.parametrize("path", PATHS)
def test_changes_after_the_exchange_are_the_way_to_write_it(path: str) -> None:
    parameters, optimizer = make_wrapped([(30, 40), (7,)], path, CONFIG)
    for step, change in enumerate([clip_norm, clip_values, mask_last, clear, replace]):
        backward(parameters, step)
        optimizer.synchronize()
        change(list(parameters.values()))
        finish_step(optimizer)
        assert_same_on_all_ranks(parameters.values())


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_gradients_in_one_buffer(exchange: str) -> None:
    """Views count each other's changes, which are no changes of a script."""
    parameters, optimizer = make_wrapped([(30, 40), (7,)], exchange, CONFIG)
    flat = torch.zeros(30 * 40 + 7)
    for parameter, part in zip(parameters.values(), flat.split([1200, 7]), strict=True):
        parameter.grad = part.view_as(parameter)
    for step in range(2):
        flat.zero_()
        backward(parameters, step)
        optimizer.step()
        assert_same_on_all_ranks([flat, *parameters.values()])

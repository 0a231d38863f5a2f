"""Arguments of Horovod's optimizer that change when and with whom gradients cross."""

from typing import Any

import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.helpers import (
    EXCHANGES,
    PATHS,
    Parameters,
    all_gradients,
    assert_same_on_all_ranks,
    backward,
    finish_step,
    make_parameters,
    needs_ranks,
    same_bits,
    ternary_mean,
    true_mean,
    wrap,
)

SHAPES = [(30, 40), (900,), (7,), (64, 20)]
CONFIG = TernaryConfig(min_values=1)


def sgd(parameters: Parameters) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters.values(), lr=0.1)


def accumulated(parameters: Parameters, number: int, steps: range) -> dict[int, torch.Tensor]:
    """Return each rank's sum of gradients, added in the order of backward passes."""
    parameter = list(parameters.values())[number]
    total = all_gradients(parameter, number, steps[0])
    for step in steps[1:]:
        for rank, gradient in all_gradients(parameter, number, step).items():
            total[rank] += gradient
    return total


@pytest.mark.parametrize("path", PATHS)
def test_gradients_accumulate_before_they_cross(path: str) -> None:
    parameters = make_parameters(SHAPES)
    optimizer = wrap(sgd(parameters), parameters, path, CONFIG, backward_passes_per_step=2)
    first = 0
    for step, passes in enumerate([2, 2, 3, 1]):
        optimizer.set_backward_passes_per_step(passes)
        steps = range(first, first + passes)
        first += passes
        for pass_number in steps:
            backward(parameters, pass_number)
        optimizer.synchronize()
        for number, (name, parameter) in enumerate(parameters.items()):
            sums = accumulated(parameters, number, steps)
            gradient = parameter.grad
            assert gradient is not None
            if path != "allreduce":
                expected = ternary_mean(sums, CONFIG, stream=number, step=step)
                assert same_bits(gradient, expected), (name, step)
            elif step == 0:
                torch.testing.assert_close(gradient.double(), true_mean(sums))
        assert_same_on_all_ranks(p.grad for p in parameters.values())
        finish_step(optimizer)


@pytest.mark.parametrize("path", EXCHANGES)
@pytest.mark.parametrize("how", ["int", "lists", "num_groups", "more than parameters"])
def test_groups_change_nothing_but_the_buckets(how: str, path: str) -> None:
    grouped, plain = make_parameters(SHAPES), make_parameters(SHAPES)
    tensors = list(grouped.values())
    arguments: dict[str, Any] = {
        "int": {"groups": 2},
        "lists": {"groups": [tensors[::2], tensors[3:]]},
        "num_groups": {"num_groups": 3},
        "more than parameters": {"groups": 9},
    }[how]
    optimizers = [
        wrap(sgd(grouped), grouped, path, CONFIG, max_bucket_values=1, **arguments),
        wrap(sgd(plain), plain, path, CONFIG),
    ]
    for step in range(3):
        for optimizer, parameters in zip(optimizers, (grouped, plain), strict=True):
            backward(parameters, step)
            optimizer.step()
            optimizer.zero_grad()
    for one, other in zip(grouped.values(), plain.values(), strict=True):
        assert same_bits(one.detach(), other.detach())
        assert not torch.equal(one, torch.ones_like(one))


@needs_ranks(2)
def test_a_group_crosses_at_once() -> None:
    parameters = make_parameters(SHAPES)
    together = [[p for name, p in parameters.items() if name != "p1"]]
    optimizer = wrap(sgd(parameters), parameters, ternary=CONFIG, groups=together)
    buckets = optimizer._reducer._buckets
    assert sorted(len(bucket.parameters) for bucket in buckets) == [1, 3]


@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("path", PATHS)
def test_predivision_leaves_the_mean(path: str, factor: float) -> None:
    parameters = make_parameters(SHAPES)
    optimizer = wrap(sgd(parameters), parameters, path, CONFIG, gradient_predivide_factor=factor)
    for step in range(3):
        backward(parameters, step)
        optimizer.synchronize()
        for number, (name, parameter) in enumerate(parameters.items()):
            gradients = all_gradients(parameter, number, step)
            gradient = parameter.grad
            assert gradient is not None
            if path != "allreduce":
                expected = ternary_mean(gradients, CONFIG, stream=number, step=step)
                assert same_bits(gradient, expected), (name, step)
            elif step == 0:
                torch.testing.assert_close(gradient.double(), true_mean(gradients))
        finish_step(optimizer)

"""Arguments of Horovod's optimizer that change when and with whom gradients cross."""

from typing import Any

import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.averages import assert_averaged, assert_steps_average, every_gradient
from tests.parallel.bits import assert_same_on_all_ranks, same_bits
from tests.parallel.helpers import Parameters, backward, make_parameters, needs_ranks
from tests.parallel.optimizers import EXCHANGES, PATHS, finish_step, make_wrapped, sgd, wrap

SHAPES = [(30, 40), (900,), (7,), (64, 20)]
CONFIG = TernaryConfig(min_values=1)


def accumulated(parameters: Parameters, steps: range) -> list[dict[int, torch.Tensor]]:
    """Return each rank's sums of gradients, added in the order of backward passes."""
    totals = every_gradient(parameters, steps[0])
    for step in steps[1:]:
        for total, gradients in zip(totals, every_gradient(parameters, step), strict=True):
            for rank, gradient in gradients.items():
                total[rank] += gradient
    return totals


@pytest.mark.parametrize("path", PATHS)
def test_gradients_accumulate_before_they_cross(path: str) -> None:
    parameters, optimizer = make_wrapped(SHAPES, path, CONFIG, backward_passes_per_step=2)
    first = 0
    for step, passes in enumerate([2, 2, 3, 1]):
        optimizer.set_backward_passes_per_step(passes)
        steps = range(first, first + passes)
        first += passes
        for pass_number in steps:
            backward(parameters, pass_number)
        optimizer.synchronize()
        sums = accumulated(parameters, steps)
        assert_averaged(parameters, sums, CONFIG, step=step, path=path)
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
    parameters, optimizer = make_wrapped(SHAPES, path, CONFIG, gradient_predivide_factor=factor)
    assert_steps_average(optimizer, parameters, CONFIG, path=path)

"""Ranks may compute different gradients, in different orders, or none."""

from collections.abc import Callable, Sequence

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import KnetError, TernaryConfig
from tests.parallel.averages import assert_averaged, every_gradient
from tests.parallel.bits import assert_same_on_all_ranks, same_bits
from tests.parallel.helpers import losses, make_parameters, needs_ranks
from tests.parallel.optimizers import EXCHANGES, PATHS, finish_step, make_wrapped, sgd, wrap

SHAPES = [(30, 40), (900,), (7,), (64, 20), (5, 5)]
CONFIG = TernaryConfig(min_values=1)
NUM = len(SHAPES)


def rank_order(step: int) -> list[int]:
    return [(number + hvd.rank() + step) % NUM for number in range(NUM)]


def one_by_one(terms: Sequence[torch.Tensor], step: int) -> None:
    for number in rank_order(step):
        terms[number].backward()


def branches(terms: Sequence[torch.Tensor], step: int) -> None:
    """One backward; autograd goes through branches in the order of their creation."""
    total = torch.zeros((), dtype=torch.float64)
    for number in rank_order(step):
        total = total + terms[number] * 1.0
    total.backward()


def forwards_or_backwards(terms: Sequence[torch.Tensor], step: int) -> None:
    for term in terms if hvd.rank() % 2 else reversed(terms):
        term.backward()


@pytest.mark.parametrize("max_bucket_values", [1, 2000])
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("order", [one_by_one, branches, forwards_or_backwards])
def test_gradients_in_another_order_on_each_rank(
    order: Callable[[Sequence[torch.Tensor], int], None], exchange: str, max_bucket_values: int
) -> None:
    parameters, optimizer = make_wrapped(
        SHAPES, exchange, CONFIG, momentum=0.9, max_bucket_values=max_bucket_values
    )
    for step in range(4):
        order(losses(parameters, step), step)
        optimizer.synchronize()
        assert_averaged(parameters, every_gradient(parameters, step), CONFIG, step=step)
        finish_step(optimizer)


@pytest.mark.parametrize("order", [one_by_one, branches, forwards_or_backwards])
def test_path_b_in_another_order_on_each_rank(
    order: Callable[[Sequence[torch.Tensor], int], None],
) -> None:
    parameters, optimizer = make_wrapped(SHAPES, "allreduce", CONFIG, momentum=0.9)
    for step in range(4):
        order(losses(parameters, step), step)
        optimizer.step()
        assert_same_on_all_ranks(parameters.values())
        optimizer.zero_grad()


@needs_ranks(2)
@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_a_rank_without_gradient_takes_part_with_zeros(path: str, set_to_none: bool) -> None:
    """In every step, each rank misses another parameter; nobody ever uses the last."""
    parameters, optimizer = make_wrapped(SHAPES, path, CONFIG, momentum=0.9)
    for step in range(4):
        terms = losses(parameters, step)
        missing = (hvd.rank() + step) % NUM
        torch.stack([terms[n] for n in range(NUM - 1) if n != missing]).sum().backward()
        optimizer.synchronize()
        gradients = every_gradient(parameters, step)
        for rank in range(hvd.size()):
            for number in ((rank + step) % NUM, NUM - 1):
                gradients[number][rank] = torch.zeros(SHAPES[number])
        assert_averaged(parameters, gradients, CONFIG, step=step, path=path)
        with optimizer.skip_synchronize():
            optimizer.step()
        assert_same_on_all_ranks(parameters.values())
        for parameter in parameters.values():
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()
    assert torch.equal(parameters[f"p{NUM - 1}"], torch.ones(SHAPES[-1]))


@pytest.mark.parametrize("path", PATHS)
def test_frozen_layers_stay_as_they_are(path: str) -> None:
    parameters = make_parameters(SHAPES)
    parameters["p0"].requires_grad_(False)
    optimizer = wrap(sgd(parameters, momentum=0.9), parameters, path, CONFIG)
    for step in range(2):
        torch.stack(losses(parameters, step)[1:]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(parameters["p0"], torch.ones(SHAPES[0]))
    assert not torch.equal(parameters["p1"], torch.ones(SHAPES[1]))
    assert_same_on_all_ranks(parameters.values())


@needs_ranks(2)
def test_unfreezing_afterwards_is_an_error_and_wrapping_again_helps() -> None:
    parameters = make_parameters(SHAPES)
    parameters["p0"].requires_grad_(False)
    optimizer = wrap(sgd(parameters, momentum=0.9), parameters, ternary=CONFIG)
    parameters["p0"].requires_grad_(True)
    losses(parameters)[0].backward()
    with pytest.raises(KnetError, match=r"\(30, 40\).*make the optimizer after"):
        optimizer.step()
    parameters["p0"].grad = None
    again = wrap(sgd(parameters, momentum=0.9), parameters, ternary=CONFIG)
    for step in range(2):
        torch.stack(losses(parameters, step)).sum().backward()
        again.step()
        again.zero_grad()
    assert not torch.equal(parameters["p0"], torch.ones(SHAPES[0]))
    assert_same_on_all_ranks(parameters.values())


@pytest.mark.parametrize("path", PATHS)
def test_two_optimizers_may_be_at_work_at_once(path: str) -> None:
    one = {f"one.{name}": p for name, p in make_parameters(SHAPES).items()}
    two = {f"two.{name}": p for name, p in make_parameters(SHAPES).items()}
    optimizers = [wrap(sgd(p, momentum=0.9), p, path, CONFIG) for p in (one, two)]
    for step in range(3):
        for parameters in (one, two) if hvd.rank() % 2 else (two, one):
            torch.stack(losses(parameters, step)).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert_same_on_all_ranks([*one.values(), *two.values()])
    if path == "allreduce" and hvd.size() > 2:
        return  # Horovod fuses by time of arrival, and so adds fp32 in other orders
    for a, b in zip(one.values(), two.values(), strict=True):
        assert same_bits(a.detach(), b.detach())

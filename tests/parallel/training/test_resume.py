"""Path A: continuing from a saved state is the same as not stopping."""

import copy

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.bits import assert_same_on_all_ranks, same_bits
from tests.parallel.helpers import Parameters, make_parameters, needs_ranks
from tests.parallel.optimizers import EXCHANGES, run_steps, wrap

SHAPES = [(30, 40), (900,), (7,)]


def copy_to(target: Parameters, source: Parameters) -> None:
    with torch.no_grad():
        for a, b in zip(target.values(), source.values(), strict=True):
            a.copy_(b)


@pytest.mark.parametrize("error_feedback", [True, False])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_parameters_are_the_same_bit_for_bit(exchange: str, error_feedback: bool) -> None:
    config = TernaryConfig(min_values=64, error_feedback=error_feedback)

    def optimizer_of(parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9)

    straight, begun, resumed, forgot = (make_parameters(SHAPES) for _ in range(4))
    run_steps(wrap(optimizer_of(straight), straight, exchange, config), straight, range(8))
    first = wrap(optimizer_of(begun), begun, exchange, config)
    run_steps(first, begun, range(4))
    copy_to(resumed, begun)
    copy_to(forgot, begun)
    state, codes = copy.deepcopy(first.state_dict()), first.compression_state_dict()
    run_steps(first, begun, range(20, 22))  # what was saved must not change with it
    second = wrap(optimizer_of(resumed), resumed, exchange, config)
    second.load_state_dict(copy.deepcopy(state))
    second.load_compression_state_dict(codes)
    run_steps(second, resumed, range(4, 8))
    third = wrap(optimizer_of(forgot), forgot, exchange, config)
    third.load_state_dict(copy.deepcopy(state))
    run_steps(third, forgot, range(4, 8))
    for a, b in zip(straight.values(), resumed.values(), strict=True):
        assert same_bits(a.detach(), b.detach())
    same = same_bits(straight["p0"].detach(), forgot["p0"].detach())
    assert same == (hvd.size() == 1), "the compressor's state made no difference"
    assert_same_on_all_ranks(resumed.values())


@needs_ranks(2)
def test_the_state_holds_the_step_and_a_residual_for_each_ternary_parameter() -> None:
    parameters = make_parameters(SHAPES)
    config = TernaryConfig(min_values=64, error_feedback=True)
    optimizer = wrap(torch.optim.SGD(parameters.values(), lr=0.1), parameters, ternary=config)
    run_steps(optimizer, parameters, range(3))
    state = optimizer.compression_state_dict()
    assert state["step"] == 3
    assert {n: tuple(t.shape) for n, t in state["residuals"].items()} == {
        "p0": (30, 40),
        "p1": (900,),
    }
    assert all(float(t.abs().max()) > 0 for t in state["residuals"].values())

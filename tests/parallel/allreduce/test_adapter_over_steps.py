"""Path B over steps: scales that fail and come back, states that are saved."""

import copy

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.averages import all_gradients, true_mean
from tests.parallel.bits import assert_same_on_all_ranks, same_bits
from tests.parallel.helpers import make_gradient, make_parameters, needs_ranks
from tests.parallel.optimizers import run_steps
from tests.parallel.path_b import SHAPES, give, make, synchronized

pytestmark = needs_ranks(2)


def test_a_gradient_of_zero_and_after_it() -> None:
    parameter = make_parameters([(600,)])["p0"]
    optimizer, compressor = make({"p0": parameter})
    for step, factor in enumerate([1.0, 0.0, 1.0, 1.0]):
        own = factor * make_gradient((600,), rank=hvd.rank(), step=step)
        give(parameter, own)
        gradient = synchronized(optimizer, parameter)
        mean = factor * true_mean(all_gradients(parameter, 0, step))
        if step in (0, 1, 2):  # step 1: all codes are 0; step 2: full precision again
            torch.testing.assert_close(gradient.double(), mean, rtol=1e-5, atol=1e-6)
        else:
            assert gradient.abs().max() > 0
            assert not torch.allclose(gradient.double(), mean, rtol=1e-2)
        has_scale = compressor.state_dict()["scales"]["p0"] is not None
        assert has_scale == (step != 1)


@pytest.mark.parametrize(
    ("error_feedback", "factor"),
    [(False, 1e6), (False, 1e-6), (True, 1e6)],  # a residual does not shrink at once
)
def test_a_gradient_that_grows_or_shrinks_a_million_times(
    error_feedback: bool, factor: float
) -> None:
    config = TernaryConfig(min_values=1, error_feedback=error_feedback)
    parameter = make_parameters([(600,)])["p0"]
    optimizer, compressor = make({"p0": parameter}, config, lr=0.0)
    for step, size in enumerate([1.0, 1.0, factor, factor, factor]):
        give(parameter, size * make_gradient((600,), rank=hvd.rank()))
        gradient = synchronized(optimizer, parameter)
        assert gradient.isfinite().all(), step
        scale = compressor.state_dict()["scales"]["p0"]
        assert (scale is None) == (step == 2), "the scale was useless after step 2 only"
    magnitudes = [float(g.square().mean().sqrt()) for g in all_gradients(parameter, 0).values()]
    unit = factor * sum(magnitudes) / hvd.size() * config.effective_clip_factor
    assert scale == pytest.approx(unit, rel=1e-3 if not error_feedback else 2.0)
    assert float(gradient.abs().max()) <= 3 * unit


@pytest.mark.parametrize("error_feedback", [False, True])
def test_going_on_from_a_saved_state_is_the_same_as_not_stopping(error_feedback: bool) -> None:
    config = TernaryConfig(min_values=1, error_feedback=error_feedback)
    straight, begun, resumed = (make_parameters(SHAPES) for _ in range(3))
    run_steps(make(straight, config)[0], straight, range(6))
    optimizer, compressor = make(begun, config)
    run_steps(optimizer, begun, range(3))
    saved = copy.deepcopy(compressor.state_dict())
    run_steps(optimizer, begun, range(9, 10))  # must not change what was saved
    before_last = make_parameters(SHAPES)
    run_steps(make(before_last, config)[0], before_last, range(3))
    with torch.no_grad():
        for target, source in zip(resumed.values(), before_last.values(), strict=True):
            target.copy_(source)
    optimizer, compressor = make(resumed, config)
    compressor.load_state_dict(saved)
    run_steps(optimizer, resumed, range(3, 6))
    if hvd.size() == 2:  # more ranks: Horovod adds the first step in any order
        for a, b in zip(straight.values(), resumed.values(), strict=True):
            assert same_bits(a.detach(), b.detach())
    for a, b in zip(straight.values(), resumed.values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert_same_on_all_ranks(resumed.values())

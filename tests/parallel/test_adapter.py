"""Path B: what Horovod's own optimizer makes of Compression.ternary."""

import copy
from typing import Any

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import Compression, TernaryConfig
from tests.parallel.helpers import (
    Parameters,
    all_gradients,
    assert_same_on_all_ranks,
    backward,
    finish_step,
    make_gradient,
    make_parameters,
    needs_ranks,
    run_steps,
    same_bits,
    ternary_mean,
    true_mean,
)

SHAPES = [(30, 40), (900,), (7,), (64, 20), ()]
CONFIG = TernaryConfig(min_values=1, seed=3)
pytestmark = needs_ranks(2)


def make(
    parameters: Parameters,
    config: TernaryConfig = CONFIG,
    op: Any = hvd.Average,
    lr: float = 0.1,
    **arguments: Any,
) -> tuple[Any, Any]:
    compressor = Compression.ternary(parameters.items(), ternary=config, op=op)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(parameters.values(), lr=lr),
        parameters.items(),
        compression=compressor,
        op=op,
        **arguments,
    )
    return optimizer, compressor


def give(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    (parameter * gradient).sum().backward()


def synchronized(optimizer: Any, parameter: torch.Tensor) -> torch.Tensor:
    """Average the gradients, end the step and return the parameter's gradient."""
    optimizer.synchronize()
    assert parameter.grad is not None
    result = parameter.grad.clone()
    finish_step(optimizer)
    return result


GROUPS = {"no groups": lambda tensors: None, "2 groups": lambda tensors: 2,
          "lists": lambda tensors: [tensors[:2], tensors[3:]]}  # fmt: skip


@pytest.mark.parametrize("groups", GROUPS.values(), ids=list(GROUPS))
@pytest.mark.parametrize("factor", [1.0, 3.0])
@pytest.mark.parametrize("op", [hvd.Average, hvd.Sum], ids=["Average", "Sum"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64], ids=lambda d: str(d)[6:]
)
def test_first_the_mean_then_exact_codes_under_the_scale_of_the_last_step(
    dtype: torch.dtype, op: Any, factor: float, groups: Any
) -> None:
    parameters = make_parameters(SHAPES, dtype)
    arguments: dict[str, Any] = {"groups": groups(list(parameters.values()))}
    if factor != 1.0 and op == hvd.Sum:
        pytest.skip("Horovod divides a mean only")
    optimizer, compressor = make(
        parameters, op=op, gradient_predivide_factor=factor, **arguments
    )
    divisor = hvd.size() if op == hvd.Average else 1
    for step in range(3):
        scales = compressor.state_dict()["scales"]
        backward(parameters, step)
        optimizer.synchronize()
        for number, (name, parameter) in enumerate(parameters.items()):
            gradients = all_gradients(parameter, number, step)
            gradient = parameter.grad
            assert gradient is not None
            if scales[name] is None:  # the first step, and always where sigma is 0
                assert step == 0 or parameter.numel() == 1
                mean = true_mean(gradients) * hvd.size() / divisor
                tolerance = 8 * torch.finfo(dtype).eps if dtype.itemsize < 4 else 1e-5
                torch.testing.assert_close(
                    gradient.double(), mean, rtol=tolerance, atol=tolerance
                )
                continue
            expected = ternary_mean(
                gradients, CONFIG, stream=number, step=step - 1, divisor=divisor,
                scales=torch.tensor([scales[name]]),
            )  # fmt: skip
            assert same_bits(gradient, expected), (name, step)
        finish_step(optimizer)


def test_the_scale_is_the_mean_deviation_of_the_step_before() -> None:
    parameters = make_parameters(SHAPES)
    optimizer, compressor = make(parameters)
    for step in range(3):
        backward(parameters, step)
        optimizer.step()
        optimizer.zero_grad()
        for number, (name, parameter) in enumerate(parameters.items()):
            gradients = all_gradients(parameter, number, step).values()
            deviations = [float(g.double().std(correction=0)) for g in gradients]
            expected = 2.5 * sum(deviations) / hvd.size()
            scale = compressor.state_dict()["scales"][name]
            assert scale == (pytest.approx(expected, rel=1e-5) if expected else None)


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
    deviations = [
        float(g.std(correction=0)) for g in all_gradients(parameter, 0).values()
    ]
    unit = factor * sum(deviations) / hvd.size() * config.effective_clip_factor
    assert scale == pytest.approx(unit, rel=1e-3 if not error_feedback else 2.0)
    assert float(gradient.abs().max()) <= 3 * unit


@pytest.mark.parametrize("error_feedback", [False, True])
def test_going_on_from_a_saved_state_is_the_same_as_not_stopping(
    error_feedback: bool,
) -> None:
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


def test_compression_ratio_grows_with_the_tensor() -> None:
    parameters = make_parameters([(1000, 1000)])
    for op, least in ((hvd.Sum, 32 / 2.38), (hvd.Average, 32 / 3.21)):
        compressor = Compression.ternary(parameters.items(), op=op)
        full = 4e6 * 2 * (hvd.size() - 1) / hvd.size()
        ratio = full / compressor.wire_bytes_per_step
        assert ratio > (least * 0.99 if hvd.size() == 2 else 5.0)

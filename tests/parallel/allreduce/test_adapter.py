"""Path B: what Horovod's own optimizer makes of Compression.ternary."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import Compression
from tests.parallel.averages import all_gradients, ternary_mean, true_mean
from tests.parallel.bits import same_bits
from tests.parallel.helpers import backward, make_parameters, needs_ranks
from tests.parallel.optimizers import finish_step
from tests.parallel.path_b import CONFIG, SHAPES, make

pytestmark = needs_ranks(2)

GROUPS = {
    "no groups": lambda tensors: None,
    "2 groups": lambda tensors: 2,
    "lists": lambda tensors: [tensors[:2], tensors[3:]],
}


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
    optimizer, compressor = make(parameters, op=op, gradient_predivide_factor=factor, **arguments)
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
                torch.testing.assert_close(gradient.double(), mean, rtol=tolerance, atol=tolerance)
                continue
            expected = ternary_mean(
                gradients,
                CONFIG,
                stream=number,
                step=step - 1,
                divisor=divisor,
                scales=torch.tensor([scales[name]]),
            )
            assert same_bits(gradient, expected), (name, step)
        finish_step(optimizer)


def test_the_scale_is_the_mean_magnitude_of_the_step_before() -> None:
    parameters = make_parameters(SHAPES)
    optimizer, compressor = make(parameters)
    for step in range(3):
        backward(parameters, step)
        optimizer.step()
        optimizer.zero_grad()
        for number, (name, parameter) in enumerate(parameters.items()):
            gradients = all_gradients(parameter, number, step).values()
            magnitudes = [float(g.double().square().mean().sqrt()) for g in gradients]
            expected = 2.5 * sum(magnitudes) / hvd.size()
            scale = compressor.state_dict()["scales"][name]
            assert scale == (pytest.approx(expected, rel=1e-5) if expected else None)


def test_compression_ratio_grows_with_the_tensor() -> None:
    parameters = make_parameters([(1000, 1000)])
    for op, least in ((hvd.Sum, 32 / 2.38), (hvd.Average, 32 / 3.21)):
        compressor = Compression.ternary(parameters.items(), op=op)
        full = 4e6 * 2 * (hvd.size() - 1) / hvd.size()
        ratio = full / compressor.wire_bytes_per_step
        assert ratio > (least * 0.99 if hvd.size() == 2 else 5.0)

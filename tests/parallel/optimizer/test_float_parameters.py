"""Gradients that stay in floating point, by name or by size."""

from typing import Any

import horovod.torch as hvd
import pytest
import torch

import knet_hvd
from knet_hvd import TernaryConfig
from tests.parallel.averages import all_gradients, true_mean
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import backward, make_parameters, needs_ranks
from tests.parallel.optimizers import PATHS, finish_step, make_wrapped, sgd

SHAPES = [(30, 40), (900,), (16,), (64, 20)]
ROUNDING = {"rtol": 1e-6 * hvd.size(), "atol": 1e-6 * hvd.size()}
CONFIG = TernaryConfig(float_parameters=("*3", "p0"), min_values=17)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", PATHS)
def test_named_and_small_ones_get_the_exact_mean(path: str, dtype: torch.dtype) -> None:
    parameters, optimizer = make_wrapped(SHAPES, path, CONFIG, dtype=dtype)
    for step in range(3):
        backward(parameters, step)
        optimizer.synchronize()
        for number, (name, parameter) in enumerate(parameters.items()):
            mean = true_mean(all_gradients(parameter, number, step))
            gradient = parameter.grad
            assert gradient is not None
            close = torch.allclose(gradient.double(), mean, **ROUNDING)
            first_of_b = path == "allreduce" and step == 0
            assert close == (name != "p1" or hvd.size() == 1 or first_of_b), name
        finish_step(optimizer)


@pytest.mark.parametrize(
    ("compression", "rounding"),
    [("none", 1e-6), (hvd.Compression.none, 1e-6), ("fp16", 2e-3), (hvd.Compression.fp16, 2e-3)],
)
def test_horovods_compressors_apply_to_the_float_tensors(compression: Any, rounding: float) -> None:
    """A string replaces the codes, a class applies to what stays float only."""
    parameters = make_parameters(SHAPES)
    optimizer = knet_hvd.DistributedOptimizer(
        sgd(parameters),
        parameters.items(),
        compression=compression,
        ternary=CONFIG,
    )
    backward(parameters)
    optimizer.synchronize()
    for number, (name, parameter) in enumerate(parameters.items()):
        mean = true_mean(all_gradients(parameter, number))
        gradient = parameter.grad
        assert gradient is not None
        error = float((gradient - mean).abs().max())
        exact = name != "p1" or isinstance(compression, str) or hvd.size() == 1
        assert (error < rounding * 5) == exact, (name, error)
        if rounding > 1e-3 and hvd.size() > 1 and exact:
            assert error > 1e-6, "nothing was rounded to fp16"
    finish_step(optimizer)
    assert_same_on_all_ranks(parameters.values())


@needs_ranks(2)
def test_fewer_bytes_are_sent() -> None:
    for wire_format, least in (("trit5", 19.5), ("crumb4", 15.5)):
        config = TernaryConfig(wire_format=wire_format)  # type: ignore[arg-type]
        _, optimizer = make_wrapped([(100, 64 * 20)], "allgather", config)
        assert optimizer.wire_bytes.uncompressed == 2 * 4 * 128_000 * (hvd.size() - 1) / hvd.size()
        ratio = optimizer.wire_bytes.ratio
        assert least < ratio * hvd.size() / 2 <= 20

"""Over many steps, averaged ternary gradients approach the true mean."""

import math

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from tests.parallel.helpers import (
    PATHS,
    all_gradients,
    finish_step,
    losses,
    make_parameters,
    needs_ranks,
    true_mean,
    wrap,
)

NUM_STEPS = 80
NUM_VALUES = 1000


@needs_ranks(2)
@pytest.mark.parametrize("path", PATHS)
def test_the_mean_over_steps_approaches_the_true_mean(path: str) -> None:
    """Of one value g, a step's code has variance |g| s - g^2, at most s^2 / 4.

    The mean over N ranks and T steps so has a standard error of at most
    s / (2 sqrt(N T)), and the mean of M values 1 / sqrt(M) of that. Six of them are
    allowed. No value may be above the scale s, hence the clip factor of 8 where the
    scale is a multiple of the standard deviation.
    """
    ternary = TernaryConfig(clip_factor=8.0)
    if path != "allreduce":
        ternary = TernaryConfig(scale_rule="max")
    parameters = make_parameters([(NUM_VALUES,)])
    optimizer = wrap(
        torch.optim.SGD(parameters.values(), lr=0.1), parameters, path, ternary
    )
    total = torch.zeros(NUM_VALUES, dtype=torch.float64)
    first = 1 if path == "allreduce" else 0  # its first step goes in full precision
    for step in range(first + NUM_STEPS):
        losses(parameters, step=0)[0].backward()  # the same gradient in every step
        optimizer.synchronize()
        gradient = parameters["p0"].grad
        assert gradient is not None
        if step >= first:
            total += gradient
        finish_step(optimizer)
    gradients = all_gradients(parameters["p0"], 0)
    mean = true_mean(gradients)
    error = total / NUM_STEPS - mean
    largest = max(float(g.abs().max()) for g in gradients.values())
    deviations = [float(g.std()) for g in gradients.values()]
    scale = 8 * sum(deviations) / hvd.size() if path == "allreduce" else largest
    allowed = 6 * scale / (2 * math.sqrt(hvd.size() * NUM_STEPS))
    assert scale * 1.01 > largest
    assert float(error.abs().max()) < allowed
    assert abs(float((error * mean.sign()).mean())) < allowed / math.sqrt(NUM_VALUES)
    assert float(error.abs().max()) > 0  # codes were sent, and not the gradient

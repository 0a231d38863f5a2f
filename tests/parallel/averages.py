"""What an exchange has to give.

Every rank can compute every other rank's gradients, and so their average, without any
communication.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd import TernaryConfig, ops
from knet_hvd.compression import local_scales
from tests.parallel.bits import assert_same_on_all_ranks, same_bits
from tests.parallel.helpers import backward, make_gradient
from tests.parallel.optimizers import finish_step

Gradients = Mapping[int, Tensor]
"""One parameter's gradient on each rank, by rank."""


def all_gradients(
    parameter: Tensor, number: int, step: int = 0, ranks: Iterable[int] | None = None
) -> dict[int, Tensor]:
    """Return the gradients of all ranks for a parameter, by rank."""
    shape, dtype = parameter.shape, parameter.dtype
    return {
        rank: make_gradient(shape, rank=rank, step=step, number=number, dtype=dtype)
        for rank in (range(hvd.size()) if ranks is None else ranks)
    }


def every_gradient(
    parameters: Mapping[str, Tensor], step: int = 0, ranks: Iterable[int] | None = None
) -> list[dict[int, Tensor]]:
    """Return the gradients of all ranks for each parameter."""
    members = None if ranks is None else list(ranks)
    return [all_gradients(p, n, step, members) for n, p in enumerate(parameters.values())]


def ternary_mean(
    gradients: Gradients,
    config: TernaryConfig,
    *,
    stream: int,
    step: int = 0,
    scales: Tensor | None = None,
    divisor: int | None = None,
) -> Tensor:
    """Return what all ranks must get for these gradients, computed by one process."""
    values = [gradient.contiguous() for gradient in gradients.values()]
    if len(values) == 1:
        return values[0]
    if scales is None:
        scales = torch.stack([local_scales([v], config) for v in values]).amax(0)
    size, form = config.scale_group_size, config.wire_format
    payloads = [
        ops.ternarize(
            [value],
            scales,
            key=(config.seed, rank, step),
            streams=[stream],
            scale_group_size=size,
            wire_format=form,
        )
        for rank, value in zip(gradients, values, strict=True)
    ]
    mean = torch.empty_like(values[0])
    ops.decode_mean(
        torch.stack(payloads),
        scales,
        [mean],
        divisor=divisor or len(values),
        scale_group_size=size,
        wire_format=form,
    )
    return mean


def true_mean(gradients: Gradients) -> Tensor:
    return torch.stack([g.double() for g in gradients.values()]).mean(0)


def assert_averaged(
    parameters: Mapping[str, Tensor],
    gradients: Iterable[Gradients],
    config: TernaryConfig,
    *,
    step: int,
    path: str = "allgather",
    divisor: int | None = None,
) -> None:
    """Assert that every parameter has the average of its gradients on all ranks.

    On path A bit for bit. Path B is compared in its first step only, which goes in full
    precision: after that its scale is that of the step before.
    """
    for number, (parameter, own) in enumerate(zip(parameters.values(), gradients, strict=True)):
        assert parameter.grad is not None
        if path != "allreduce":
            expected = ternary_mean(own, config, stream=number, step=step, divisor=divisor)
            assert same_bits(parameter.grad, expected), (number, step)
        elif step == 0:
            torch.testing.assert_close(parameter.grad.double(), true_mean(own))


def assert_steps_average(
    optimizer: Any,
    parameters: Mapping[str, Tensor],
    config: TernaryConfig,
    *,
    num_steps: int = 3,
    path: str = "allgather",
    divisor: int | None = None,
    process_set: hvd.ProcessSet = hvd.global_process_set,
) -> None:
    """Train some steps and assert in each that all ranks of the set get the averages."""
    for step in range(num_steps):
        backward(parameters, step)
        optimizer.synchronize()
        gradients = every_gradient(parameters, step, process_set.ranks)
        assert_averaged(parameters, gradients, config, step=step, path=path, divisor=divisor)
        assert_same_on_all_ranks((p.grad for p in parameters.values()), process_set)
        finish_step(optimizer)

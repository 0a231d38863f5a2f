"""What parallel tests share.

Every rank can compute every other rank's gradients, and so what the exchange has to
give, without any communication.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import horovod.torch as hvd
import pytest
import torch
from torch import Tensor, nn

import knet_hvd
from knet_hvd import TernaryConfig, ops
from knet_hvd.compression import local_scales

EXCHANGES = ("allgather", "alltoall")
PATHS = (*EXCHANGES, "allreduce")
"""The last is path B: Horovod's own optimizer with Compression.ternary."""

Parameters = dict[str, nn.Parameter]


def needs_ranks(number: int) -> pytest.MarkDecorator:
    reason = f"needs {number} ranks, got {hvd.size()}"
    return pytest.mark.skipif(hvd.size() < number, reason=reason)


def make_gradient(
    shape: Sequence[int],
    *,
    rank: int,
    step: int = 0,
    number: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Return the gradient of one rank in one step for the parameter of that number."""
    seed = (rank * 1009 + step) * 1009 + number
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def make_parameters(
    shapes: Iterable[Sequence[int]], dtype: torch.dtype = torch.float32
) -> Parameters:
    """Return parameters p0, p1, ..., the same on all ranks."""
    return {
        f"p{number}": nn.Parameter(torch.ones(tuple(shape), dtype=dtype))
        for number, shape in enumerate(shapes)
    }


def losses(parameters: Mapping[str, Tensor], step: int = 0) -> list[Tensor]:
    """Return a loss for each parameter, whose gradient is that of make_gradient."""
    return [
        (p * own_gradient(p, number, step)).sum().double()
        for number, p in enumerate(parameters.values())
    ]


def own_gradient(parameter: Tensor, number: int, step: int = 0) -> Tensor:
    shape, dtype, rank = parameter.shape, parameter.dtype, hvd.rank()
    return make_gradient(shape, rank=rank, step=step, number=number, dtype=dtype)


def all_gradients(
    parameter: Tensor, number: int, step: int = 0, ranks: Iterable[int] | None = None
) -> dict[int, Tensor]:
    """Return the gradients of all ranks for a parameter, by rank."""
    shape, dtype = parameter.shape, parameter.dtype
    return {
        rank: make_gradient(shape, rank=rank, step=step, number=number, dtype=dtype)
        for rank in (range(hvd.size()) if ranks is None else ranks)
    }


def backward(parameters: Mapping[str, Tensor], step: int = 0) -> None:
    torch.stack(losses(parameters, step)).sum().backward()


def ternary_mean(
    gradients: Mapping[int, Tensor],
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


def true_mean(gradients: Mapping[int, Tensor]) -> Tensor:
    return torch.stack([g.double() for g in gradients.values()]).mean(0)


def wrap(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, Tensor],
    path: str = "allgather",
    ternary: TernaryConfig | None = None,
    **arguments: Any,
) -> Any:
    """Wrap an optimizer in one of the two ways into Horovod."""
    named = list(parameters.items())
    if path != "allreduce":
        return knet_hvd.DistributedOptimizer(
            optimizer, named, ternary=ternary, exchange=path, **arguments
        )
    shared = {key: arguments[key] for key in ("op", "process_set") if key in arguments}
    compressor = knet_hvd.Compression.ternary(named, ternary=ternary, **shared)
    return hvd.DistributedOptimizer(optimizer, named, compression=compressor, **arguments)


def finish_step(optimizer: Any) -> None:
    """Update with gradients that are synchronized already."""
    with optimizer.skip_synchronize():
        optimizer.step()
    optimizer.zero_grad()


def as_bytes(tensors: Iterable[Tensor]) -> Tensor:
    flat = [t.detach().reshape(-1).contiguous().view(torch.uint8) for t in tensors]
    return torch.cat(flat)


def same_bits(actual: Tensor, expected: Tensor) -> bool:
    same_kind = (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    return same_kind and torch.equal(as_bytes([actual]), as_bytes([expected]))


def assert_same_on_all_ranks(
    tensors: Iterable[Tensor], process_set: hvd.ProcessSet = hvd.global_process_set
) -> None:
    own = as_bytes(tensors)
    name = os.environ["PYTEST_CURRENT_TEST"]
    table = hvd.allgather(own.unsqueeze(0), name=name, process_set=process_set)
    differing = (table != own).any(1).nonzero().flatten().tolist()
    assert not differing, f"rank {hvd.rank()} differs from rows {differing}"


def run_steps(
    optimizer: Any,
    parameters: Mapping[str, Tensor],
    steps: Iterable[int],
    give: Callable[[Mapping[str, Tensor], int], None] = backward,
) -> None:
    for step in steps:
        optimizer.zero_grad()
        give(parameters, step)
        optimizer.step()
    optimizer.zero_grad()

"""Optimizers wrapped in each way that the project has, and their steps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

import knet_hvd
from knet_hvd import TernaryConfig
from tests.parallel.helpers import Parameters, backward, make_parameters

EXCHANGES = ("allgather", "alltoall")
PATHS = (*EXCHANGES, "allreduce")
"""The last is path B: Horovod's own optimizer with Compression.ternary."""


def sgd(
    parameters: Mapping[str, Tensor], lr: float = 0.1, momentum: float = 0.0
) -> torch.optim.SGD:
    return torch.optim.SGD(parameters.values(), lr=lr, momentum=momentum)


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


def make_wrapped(
    shapes: Iterable[Sequence[int]],
    path: str = "allgather",
    ternary: TernaryConfig | None = None,
    *,
    lr: float = 0.1,
    momentum: float = 0.0,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> tuple[Parameters, Any]:
    """Return new parameters and their wrapped optimizer."""
    parameters = make_parameters(shapes, dtype)
    plain = sgd(parameters, lr, momentum)
    return parameters, wrap(plain, parameters, path, ternary, **arguments)


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


def finish_step(optimizer: Any) -> None:
    """Update with gradients that are synchronized already."""
    with optimizer.skip_synchronize():
        optimizer.step()
    optimizer.zero_grad()

"""Move the tensors of a model once: from one rank to all, or from all to one.

What crosses in every step goes over links instead.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor

from knet_hvd.comm.world import World
from knet_hvd.errors import KnetError

_TAG = 5


@torch.no_grad()
def broadcast_tensors(world: World, tensors: Sequence[Tensor], root: int = 0) -> None:
    """Give tensors the values that one rank has; every rank has to call.

    Args:
        world: All ranks.
        tensors: The same shapes and dtypes in the same order on all ranks; changed in place,
            on any device.
        root: The rank whose values they get.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    for tensor in tensors:
        values = tensor.detach().cpu().contiguous()
        request = world.comm.Ibcast([_bytes(values), MPI.BYTE], root)
        _wait(world, request, "the initial values of the model")
        if world.rank != root:
            tensor.copy_(values)


def gather_tensors(
    world: World, tensors: Mapping[str, Tensor], what: str, root: int = 0
) -> dict[str, Tensor] | None:
    """Return the tensors of all ranks on one of them; every rank has to call.

    Args:
        world: All ranks.
        tensors: This rank's; names that several ranks have are taken from the first.
        what: What they are, for messages.
        root: The rank that gets them.

    Returns:
        On the root, tensors in memory of their own by name, ranks in order; None elsewhere.

    Raises:
        KnetError: If a rank does not take part in time, or has a dtype that is unknown.
    """
    own = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    shapes = {name: [_dtype_name(value), list(value.shape)] for name, value in own.items()}
    tables = [json.loads(text) for text in world.gather_text(json.dumps(shapes), what)]
    if world.rank != root:
        for value in own.values():
            request = world.comm.Isend([_bytes(value), MPI.BYTE], root, _TAG)
            _wait(world, request, what)
        return None
    found: dict[str, Tensor] = {}
    for rank, table in enumerate(tables):
        for name, (dtype, shape) in table.items():
            value = (
                own[name].clone() if rank == root else _received(world, rank, dtype, shape, what)
            )
            found.setdefault(name, value)
    return found


def _received(world: World, source: int, dtype: str, shape: list[int], what: str) -> Tensor:
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise KnetError(f"rank {source}: expected the dtype of a tensor, got {dtype[:80]!r}")
    value = torch.empty(shape, dtype=kind)
    _wait(world, world.comm.Irecv([_bytes(value), MPI.BYTE], source, _TAG), what)
    return value


def _wait(world: World, request: MPI.Request, what: str) -> None:
    world.waiter.until(lambda: bool(request.Test()), f"rank {world.rank}: waiting for {what}")


def _bytes(tensor: Tensor) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """View a contiguous tensor as bytes."""
    flat: np.ndarray[Any, np.dtype[np.uint8]] = tensor.reshape(-1).view(torch.uint8).numpy()
    return flat


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")

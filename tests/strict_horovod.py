"""Horovod for tensors of the strict device: they are unwrapped before a call, and wrapped after.

What Horovod does with a GPU's tensors this does not show; that none of them lies elsewhere, it
does.
"""

import sys
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from tests.strict_device import StrictTensor, inner, new_tensor

_IN_PLACE = ("allreduce_async_", "broadcast_async_")
_OUT_OF_PLACE = ("allreduce_async", "allgather_async", "alltoall_async")


def take_strict_tensors(patch: pytest.MonkeyPatch) -> set[str]:
    """Have all of Horovod's calls take tensors of the strict device as well.

    Returns:
        The names of the calls that have been made with such tensors; grows.
    """
    results: dict[int, StrictTensor | None] = {}
    seen: set[str] = set()

    def starts(name: str, real: Callable[..., int]) -> Callable[..., int]:
        def call(tensor: Tensor, *args: Any, **kwargs: Any) -> int:
            handle = real(inner(tensor), *args, **kwargs)
            if isinstance(tensor, StrictTensor):
                seen.add(name)
                results[handle] = tensor if name in _IN_PLACE else None
            return handle

        return call

    synchronize = hvd.synchronize

    def ends(handle: int) -> Any:
        found = synchronize(handle)
        if handle not in results:
            return found
        in_place = results.pop(handle)
        return tree_map_only(Tensor, StrictTensor, found) if in_place is None else in_place

    _replace(patch, "synchronize", ends)
    with torch.device("cpu"):
        torch.empty(0)  # PyTorch remembers what makes tensors: the real functions, not ours
    patch.setattr(torch, "tensor", new_tensor)
    for name in (*_IN_PLACE, *_OUT_OF_PLACE):
        _replace(patch, name, starts(name, getattr(hvd, name)))
    return seen


def _replace(patch: pytest.MonkeyPatch, name: str, call: Callable[..., Any]) -> None:
    """Replace a call in each of Horovod's modules, which import it from one another."""
    real = getattr(hvd, name)
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("horovod.torch") and getattr(module, name, None) is real:
            patch.setattr(module, name, call)

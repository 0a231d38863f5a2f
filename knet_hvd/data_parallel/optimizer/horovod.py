"""Horovod's own optimizer as an ``AveragingOptimizer``."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import horovod.torch as hvd
import torch

# Not `hvd.DistributedOptimizer`, in whose place a framework may have put ours.
from horovod.torch.optimizer import DistributedOptimizer
from torch import Tensor

from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor
from knet_hvd.data_parallel.optimizer.averaging import WireBytes
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot
from knet_hvd.performance import Advice, allreduce_bytes


class HorovodOptimizer(torch.optim.Optimizer):
    """Add what ``AveragingOptimizer`` asks for to Horovod's optimizer.

    Horovod derives the class of its optimizer from the class of the one that it is
    given. ``wrap_horovod`` gives it one that is derived from this class.
    """

    compression_advice: Advice | None
    # From here on: attributes of Horovod's class, which is derived from this one.
    process_set: hvd.ProcessSet
    synchronize: Callable[[], None]
    skip_synchronize: Callable[[], AbstractContextManager[None]]
    _compression: Any
    _handles: dict[Tensor, tuple[int | None, Any]]

    def poll(self) -> bool:
        """See ``AveragingOptimizer.poll``."""
        return all(handle is None or hvd.poll(handle) for handle, _ in self._handles.values())

    @property
    def _compressor(self) -> TernaryCompressor | None:
        """Path B's compressor, if the optimizer was given one."""
        found = self._compression
        return found if isinstance(found, TernaryCompressor) else None

    def compression_state_dict(self) -> dict[str, Any]:
        """See ``AveragingOptimizer.compression_state_dict``."""
        compressor = self._compressor
        return compressor.state_dict() if compressor is not None else {}

    def load_compression_state_dict(self, state: dict[str, Any]) -> None:
        """See ``AveragingOptimizer.load_compression_state_dict``."""
        compressor = self._compressor
        if compressor is not None:
            compressor.load_state_dict(state)

    @property
    def wire_bytes(self) -> WireBytes:
        """See ``AveragingOptimizer.wire_bytes``."""
        num_ranks = int(self.process_set.size()) if self.process_set.included() else 1
        parameters = [
            parameter
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.requires_grad
        ]
        full = allreduce_bytes(sum(p.numel() * p.element_size() for p in parameters), num_ranks)
        if self._compressor is not None:
            return WireBytes(self._compressor.wire_bytes_per_step, full)
        if self._compression is hvd.Compression.fp16:
            half = allreduce_bytes(2 * sum(p.numel() for p in parameters), num_ranks)
            return WireBytes(half, full)
        return WireBytes(full, full)

    @property
    def ternary_names(self) -> Sequence[str]:
        """Names of parameters whose scales and snapshots can be seen: none."""
        return ()

    @property
    def scales(self) -> Mapping[str, Tensor]:
        """No scales: path B's are part of its state."""
        return {}

    @property
    def snapshots(self) -> Mapping[str, GradientSnapshot]:
        """No snapshots."""
        return {}

    def request_snapshots(self, names: Iterable[str]) -> None:
        """Ignore the request."""


def wrap_horovod(
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, Tensor]],
    compression: Any,
    advice: Advice | None = None,
    **arguments: Any,
) -> HorovodOptimizer:
    """Return Horovod's optimizer with the methods of ``AveragingOptimizer``.

    Args:
        optimizer: What updates the parameters.
        named_parameters: Names of all its parameters.
        compression: A Horovod compressor, or a ``TernaryCompressor``.
        advice: What ``compression="auto"`` predicted.
        arguments: Other arguments of ``hvd.DistributedOptimizer``.
    """
    own: Any = type(optimizer)
    base = _averaging_class(own)
    basis = base.__new__(base)
    basis.__dict__.update(optimizer.__dict__)
    wrapped: HorovodOptimizer = DistributedOptimizer(
        basis, named_parameters, compression, **arguments
    )
    wrapped.compression_advice = advice
    return wrapped


@functools.cache
def _averaging_class(own: type[torch.optim.Optimizer]) -> Any:
    """Return an optimizer's class with the methods of ``HorovodOptimizer``."""
    return type(own.__name__, (HorovodOptimizer, own), {})

"""Collectives over Horovod, which pairs operations by name."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.collectives.base import Collectives
from knet_hvd.errors import KnetError

_FUSION_BUFFER_BYTES = 128 * 2**20  # Horovod's default


def _completed(result: Tensor) -> Tensor:
    """Have the current stream wait for a result that Horovod may give out early.

    With ``HOROVOD_ENABLE_ASYNC_COMPLETION`` only the default stream waits for the operation.
    """
    completes_early = os.environ.get("HOROVOD_ENABLE_ASYNC_COMPLETION") not in (None, "", "0")
    if completes_early and result.is_cuda:
        default = torch.cuda.default_stream(result.device)
        torch.cuda.current_stream(result.device).wait_stream(default)
    return result


@dataclass(frozen=True, slots=True)
class _Reduced:
    """An operation whose result lies in memory of ours."""

    handle: int

    def poll(self) -> bool:
        return bool(hvd.poll(self.handle))

    def wait(self) -> Tensor:
        return _completed(hvd.synchronize(self.handle))


@dataclass(frozen=True, slots=True)
class _Maximum(_Reduced):
    """A maximum, and beside it -1 of every rank that has not called ``hvd.join()``.

    A rank that has takes part in reductions with zeros, but an all-gather with it ends Horovod
    itself and leaves ranks waiting.
    """

    presence: int

    def poll(self) -> bool:
        return bool(hvd.poll(self.handle) and hvd.poll(self.presence))

    def wait(self) -> Tensor:
        result = _completed(hvd.synchronize(self.handle))
        if float(hvd.synchronize(self.presence)) == 0.0:
            raise KnetError(
                "a rank has called hvd.join() while others still exchange gradients. Ternary "
                "gradients need all ranks in every step: give them the same number of batches"
            )
        return result


@dataclass(frozen=True, slots=True)
class _Received(_Reduced):
    """An operation whose result lies in memory that Horovod allocated."""

    def wait(self) -> Tensor:
        result = hvd.synchronize(self.handle)
        received = _completed(result[0] if isinstance(result, tuple) else result)
        if received.is_cuda:
            # Horovod allocates on the default stream. Without this, on another stream, the
            # allocator could hand the block out again while kernels still read it.
            received.record_stream(torch.cuda.current_stream(received.device))
        return received


class HorovodCollectives(Collectives):
    """Implement ``Collectives`` over the ranks of a process set."""

    def __init__(self, process_set: hvd.ProcessSet = hvd.global_process_set) -> None:
        """Take a process set that includes this rank; Horovod is initialized."""
        self._process_set = process_set
        self._ranks = tuple(process_set.ranks or range(process_set.size()))

    @property
    def ranks(self) -> Sequence[int]:
        """See ``Collectives.ranks``."""
        return self._ranks

    @property
    def rank(self) -> int:
        """See ``Collectives.rank``."""
        return int(self._process_set.rank())

    @property
    def are_mpi_ranks(self) -> bool:
        """See ``Collectives.are_mpi_ranks``."""
        return bool(hvd.mpi_enabled() and hvd.mpi_threads_supported())

    @property
    def fusion_bytes(self) -> int:
        """See ``Collectives.fusion_bytes``; of this rank's environment."""
        return int(os.environ.get("HOROVOD_FUSION_THRESHOLD") or _FUSION_BUFFER_BYTES)

    def check_device(self, device: torch.device) -> None:
        """See ``Collectives.check_device``."""
        if device.type != "cuda":
            return
        if not (hvd.cuda_built() or hvd.rocm_built()):
            raise KnetError(
                f"gradients on {device}: this Horovod was built without CUDA, and tensors on a "
                "GPU would end the process; build it where CUDA_HOME is set, with "
                "HOROVOD_GPU_OPERATIONS=NCCL tools/build_horovod.sh"
            )
        if not hvd.nccl_built():
            warnings.warn(
                "this Horovod was built without NCCL: gradients on a GPU pass through the host's "
                "memory",
                stacklevel=2,
            )

    def maximum(self, values: Tensor, name: str) -> _Reduced:
        """See ``Collectives.maximum``."""
        present = self._reduce(torch.tensor([-1.0]), hvd.Max, f"{name}.present")
        return _Maximum(self._reduce(values, hvd.Max, name).handle, present.handle)

    def sum(self, values: Tensor, name: str) -> _Reduced:
        """See ``Collectives.sum``."""
        return self._reduce(values, hvd.Sum, name)

    def mean(self, values: Tensor, name: str) -> _Reduced:
        """See ``Collectives.mean``."""
        return self._reduce(values, hvd.Average, name)

    def _reduce(self, values: Tensor, op: int, name: str) -> _Reduced:
        name = f"knet_hvd.{name}"
        return _Reduced(
            hvd.allreduce_async_(values, op=op, name=name, process_set=self._process_set)
        )

    def all_gather(self, values: Tensor, sizes: Sequence[int], name: str) -> _Reduced:
        """See ``Collectives.all_gather``; Horovod asks for the sizes itself."""
        name = f"knet_hvd.{name}"
        return _Received(hvd.allgather_async(values, name=name, process_set=self._process_set))

    def all_to_all(
        self, values: Tensor, send_sizes: Sequence[int], receive_sizes: Sequence[int], name: str
    ) -> _Reduced:
        """See ``Collectives.all_to_all``; Horovod asks for the sizes itself."""
        splits = torch.tensor(send_sizes, dtype=torch.int32)
        name = f"knet_hvd.{name}"
        return _Received(
            hvd.alltoall_async(values, splits=splits, name=name, process_set=self._process_set)
        )

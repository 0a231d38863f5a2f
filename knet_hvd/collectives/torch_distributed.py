"""Collectives over torch.distributed, which pairs the operations of a group by their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from knet_hvd.collectives.base import Collectives
from knet_hvd.collectives.float_order import from_ordered, to_ordered
from knet_hvd.errors import KnetError

_PHASES = ("scales", "codes", "levels", "float")

# torch 2.13 gave the function its second name and warns of the first.
_gather_into_one: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


def _unchanged(result: Tensor) -> Tensor:
    return result


@dataclass(frozen=True, slots=True)
class _Started:
    """An operation, where its result will lie, and the tensors that it reads."""

    work: Any
    result: Tensor
    what: str
    sent: Tensor
    finish: Callable[[Tensor], Tensor] = _unchanged

    def poll(self) -> bool:
        return bool(self.work.is_completed())

    def wait(self) -> Tensor:
        try:
            self.work.wait()
        except RuntimeError as error:
            raise KnetError(
                f"{self.what} failed: a rank has ended, or did not take part in time ({error})"
            ) from error
        return self.finish(self.result)


class TorchCollectives(Collectives):
    """Implement ``Collectives`` over the ranks of a process group.

    Callers start the operations of one phase in the same order on all ranks. Operations of
    different phases may be started in any order: each phase has a process group of its own.
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None = None,
        *,
        start_timeout_s: float = 30.0,
        timeout_s: float | None = None,
    ) -> None:
        """Make a process group for each phase; all ranks of the group call this.

        Args:
            process_group: A group that includes this rank; None for the default group.
            start_timeout_s: Seconds to wait here for a rank, and where settings are compared.
            timeout_s: Seconds that an operation waits for a rank; torch's own time if None.

        Raises:
            KnetError: If torch.distributed is not initialized, or a rank does not come.
        """
        if not (dist.is_available() and dist.is_initialized()):
            raise KnetError(
                "torch.distributed is not initialized: call "
                "torch.distributed.init_process_group() first, in a script that torchrun starts"
            )
        self._ranks = tuple(dist.get_process_group_ranks(process_group or dist.group.WORLD))
        if dist.get_rank() not in self._ranks:
            raise KnetError(f"rank {dist.get_rank()} is not in the process group {self._ranks}")
        self._rank = self._ranks.index(dist.get_rank())
        self._backends = dict(
            pair.split(":") for pair in str(dist.get_backend_config(process_group)).split(",")
        )
        # Settings are compared in the host's memory, also where gradients are on GPUs.
        self._other = self._new_group("settings", start_timeout_s, "gloo")
        self._groups = {phase: self._new_group(phase, timeout_s) for phase in _PHASES}

    def _new_group(
        self, phase: str, timeout_s: float | None, backend: str | None = None
    ) -> dist.ProcessGroup:
        is_part = len(self._ranks) < dist.get_world_size()
        try:
            group: dist.ProcessGroup = dist.new_group(
                list(self._ranks),
                timeout=None if timeout_s is None else timedelta(seconds=timeout_s),
                backend=backend,
                use_local_synchronization=is_part,
                group_desc=f"knet_hvd {phase}",
            )
        except RuntimeError as error:
            raise KnetError(
                f"rank {self.job_rank}: not all ranks made the process group of {phase}. Does "
                f"every rank run the same script? ({error})"
            ) from error
        return group

    @property
    def ranks(self) -> Sequence[int]:
        """See ``Collectives.ranks``."""
        return self._ranks

    @property
    def rank(self) -> int:
        """See ``Collectives.rank``."""
        return self._rank

    @property
    def fusion_bytes(self) -> int:
        """See ``Collectives.fusion_bytes``: torch.distributed joins no tensors."""
        return 0

    def check_device(self, device: torch.device) -> None:
        """See ``Collectives.check_device``."""
        expected = {"cpu": "gloo", "cuda": "nccl"}.get(device.type, device.type)
        backend = self._backends.get(device.type, "nothing")
        if backend != expected:
            raise KnetError(
                f"gradients on {device}: expected a process group with {expected} for them, got "
                f"{backend}; write init_process_group('{expected}')"
            )

    def maximum(self, values: Tensor, name: str) -> _Started:
        """See ``Collectives.maximum``; a NaN of any rank is kept."""
        return self._reduce(
            to_ordered(values),
            dist.ReduceOp.MAX,
            name,
            partial(from_ordered, dtype=values.dtype),
        )

    def sum(self, values: Tensor, name: str) -> _Started:
        """See ``Collectives.sum``."""
        return self._reduce(values, dist.ReduceOp.SUM, name)

    def mean(self, values: Tensor, name: str) -> _Started:
        """See ``Collectives.mean``: DistributedDataParallel divides first."""
        return self._reduce(values.div_(self.size), dist.ReduceOp.SUM, name)

    def _reduce(
        self, values: Tensor, op: Any, name: str, finish: Callable[[Tensor], Tensor] = _unchanged
    ) -> _Started:
        work = dist.all_reduce(values, op, self._group(name), async_op=True)
        return _Started(work, values, self._what(name), values, finish)

    def all_gather(self, values: Tensor, sizes: Sequence[int], name: str) -> _Started:
        """See ``Collectives.all_gather``; unequal sizes cross as the largest of them."""
        largest = max(sizes)
        sent = values
        if values.numel() < largest:
            sent = torch.cat([values, values.new_zeros(largest - values.numel())])
        result = values.new_empty(largest * self.size)
        work = _gather_into_one(result, sent, group=self._group(name), async_op=True)
        finish = _unchanged if min(sizes) == largest else partial(_leave_padding, sizes=sizes)
        return _Started(work, result, self._what(name), sent, finish)

    def all_to_all(
        self, values: Tensor, send_sizes: Sequence[int], receive_sizes: Sequence[int], name: str
    ) -> _Started:
        """See ``Collectives.all_to_all``."""
        result = values.new_empty(sum(receive_sizes))
        work = dist.all_to_all_single(
            result,
            values,
            list(receive_sizes),
            list(send_sizes),
            group=self._group(name),
            async_op=True,
        )
        return _Started(work, result, self._what(name), values)

    def _group(self, name: str) -> dist.ProcessGroup:
        return self._groups.get(name.split(".", 1)[0], self._other)

    def _what(self, name: str) -> str:
        return f"rank {self.job_rank}: {name}"


def _leave_padding(result: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the first values of each rank's equal part."""
    parts = result.view(len(sizes), -1)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

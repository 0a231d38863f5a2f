"""Exchanges: how packed codes cross the network and come back as gradients.

An exchange is a generator: it starts a Horovod operation, yields its handle, and goes
on with the result once somebody sends it in. So nothing here waits, and the steps of
several buckets can be in flight at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import horovod.torch as hvd
from torch import Tensor

from knet_hvd.compression import TernaryCodec
from knet_hvd.data_parallel.buckets.buffers import BufferPool
from knet_hvd.data_parallel.buckets.plan import Chunk, TernaryBucket

Steps = Generator[int, Any, None]
"""Yields Horovod handles, receives their results."""

ExchangeChoice = Literal["auto", "allgather", "alltoall"]


@dataclass(frozen=True, slots=True)
class Exchange(ABC):
    """Bring the sum of all ranks' codes back to every rank.

    Attributes:
        codec: The ternary codec, the same on all ranks but for the rank.
        process_set: The ranks that take part.
        divisor: What sums are divided by: number of ranks for a mean, 1 for a sum.
        buffers: Memory for codes and sums.
    """

    codec: TernaryCodec
    process_set: hvd.ProcessSet
    divisor: int
    buffers: BufferPool = field(default_factory=BufferPool)

    @property
    def num_ranks(self) -> int:
        """Number of ranks that take part."""
        return int(self.process_set.size())

    @abstractmethod
    def run(
        self,
        bucket: TernaryBucket,
        payloads: Iterator[Tensor],
        scales: Tensor,
        outputs: list[Tensor],
    ) -> Steps:
        """Exchange one bucket's payloads and decode the result.

        Args:
            bucket: Where each parameter lies in the buffers.
            payloads: This rank's codes of each chunk, uint8; encoding one overlaps with
                sending those before it.
            scales: Shared scales, fp32 [num_scales].
            outputs: A contiguous tensor [n] for each parameter, overwritten.
        """

    @abstractmethod
    def wire_bytes(self, chunk: Chunk) -> float:
        """Return the bytes that this rank sends for a chunk, scales not counted."""

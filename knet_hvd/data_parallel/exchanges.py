"""Exchanges: how packed codes cross the network and come back as gradients.

An exchange is a generator: it starts a Horovod operation, yields its handle, and goes
on with the result once somebody sends it in. So nothing here waits, and the steps of
several buckets can be in flight at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import LevelsCodec, TernaryCodec
from knet_hvd.data_parallel.buckets import TernaryBucket
from knet_hvd.performance import allgather_bytes, alltoall_bytes, cheapest_exchange

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
    """

    codec: TernaryCodec
    process_set: hvd.ProcessSet
    divisor: int

    @property
    def num_ranks(self) -> int:
        """Number of ranks that take part."""
        return int(self.process_set.size())

    @abstractmethod
    def run(
        self,
        bucket: TernaryBucket,
        payload: Tensor,
        scales: Tensor,
        outputs: list[Tensor],
    ) -> Steps:
        """Exchange one bucket's payload and decode the result.

        Args:
            bucket: Where each parameter lies in the buffers.
            payload: This rank's codes, uint8 [payload_bytes].
            scales: Shared scales, fp32 [num_scales].
            outputs: A contiguous tensor for each parameter, overwritten.
        """

    @abstractmethod
    def wire_bytes(self, bucket: TernaryBucket) -> float:
        """Return the bytes that this rank sends for a bucket, scales not counted."""


class AllgatherExchange(Exchange):
    """Every rank receives every payload and adds them itself; best for few ranks."""

    __slots__ = ()

    def run(
        self,
        bucket: TernaryBucket,
        payload: Tensor,
        scales: Tensor,
        outputs: list[Tensor],
    ) -> Steps:
        """See ``Exchange.run``."""
        gathered = yield hvd.allgather_async(
            payload,
            name=f"knet_hvd.codes.{bucket.name}",
            process_set=self.process_set,
        )
        payloads = gathered.view(self.num_ranks, bucket.payload_bytes)
        with torch.profiler.record_function("knet_hvd::decode"):
            for part, out in zip(bucket.slices, outputs, strict=True):
                self.codec.decode(
                    payloads.narrow(1, *part.payload),
                    scales.narrow(0, *part.scales),
                    out,
                    self.divisor,
                )

    def wire_bytes(self, bucket: TernaryBucket) -> float:
        """See ``Exchange.wire_bytes``."""
        return allgather_bytes(bucket.payload_bytes, self.num_ranks)


class AlltoallExchange(Exchange):
    """Each rank adds one shard of all ranks' codes, then the levels are gathered.

    What a server does in the paper, spread over the ranks; the sums stay exact.
    """

    __slots__ = ()

    @property
    def levels(self) -> LevelsCodec:
        """The codec of the sums."""
        return LevelsCodec(self.num_ranks)

    def _shards(self, bucket: TernaryBucket) -> list[int]:
        """Return the bytes of each rank's shard, whole blocks."""
        blocks, ranks = bucket.payload_bytes // ops.BLOCK_BYTES, self.num_ranks
        ends = [blocks * (rank + 1) // ranks for rank in range(ranks)]
        return [
            (end - begin) * ops.BLOCK_BYTES
            for begin, end in zip([0, *ends], ends, strict=False)
        ]

    def _values(self, num_bytes: int) -> int:
        planes = ops.block_values(self.codec.config.wire_format) // ops.BLOCK_BYTES
        return num_bytes * planes

    def run(
        self,
        bucket: TernaryBucket,
        payload: Tensor,
        scales: Tensor,
        outputs: list[Tensor],
    ) -> Steps:
        """See ``Exchange.run``."""
        shards = self._shards(bucket)
        received, _ = yield hvd.alltoall_async(
            payload,
            splits=torch.tensor(shards, dtype=torch.int32),
            name=f"knet_hvd.codes.{bucket.name}",
            process_set=self.process_set,
        )
        with torch.profiler.record_function("knet_hvd::sum"):
            own_bytes = shards[self.process_set.rank()]
            words = self._pack_own_sums(received.view(self.num_ranks, own_bytes))
        gathered = yield hvd.allgather_async(
            words,
            name=f"knet_hvd.levels.{bucket.name}",
            process_set=self.process_set,
        )
        with torch.profiler.record_function("knet_hvd::decode"):
            sums = self._unpack_sums(gathered, shards)
            for part, out in zip(bucket.slices, outputs, strict=True):
                own = sums.narrow(0, part.sums, out.numel())
                shared = scales.narrow(0, *part.scales)
                self.codec.dequantize(own, shared, out, self.divisor)

    def _pack_own_sums(self, payloads: Tensor) -> Tensor:
        """Add the codes [num_ranks, bytes] of this rank's shard; return the words."""
        numel = self._values(payloads.size(1))
        sums = torch.empty(numel, dtype=torch.int16, device=payloads.device)
        ops.unpack_sum(payloads, self.codec.config.wire_format, sums)
        return self.levels.pack(sums)

    def _unpack_sums(self, words: Tensor, shards: list[int]) -> Tensor:
        """Unpack the words of all shards to the sums [values of the bucket], int16."""
        values = [self._values(shard) for shard in shards]
        counts = [self.levels.num_words(numel) for numel in values]
        sums = torch.empty(sum(values), dtype=torch.int16, device=words.device)
        for part, out in zip(words.split(counts), sums.split(values), strict=True):
            self.levels.unpack(part, out)
        return sums

    def wire_bytes(self, bucket: TernaryBucket) -> float:
        """See ``Exchange.wire_bytes``."""
        shards, ranks = self._shards(bucket), self.num_ranks
        words = [self.levels.num_words(self._values(shard)) for shard in shards]
        codes = alltoall_bytes(bucket.payload_bytes, ranks)
        return codes + allgather_bytes(8 * sum(words) / ranks, ranks)


_KINDS: dict[str, type[Exchange]] = {
    "allgather": AllgatherExchange,
    "alltoall": AlltoallExchange,
}


def check_exchange(choice: str) -> None:
    """Check the name of an exchange.

    Raises:
        ValueError: If there is none of that name.
    """
    if choice not in ("auto", *_KINDS):
        names = ", ".join(_KINDS)
        raise ValueError(f"exchange: expected auto, {names}; got {choice!r}")


def make_exchange(
    choice: ExchangeChoice,
    codec: TernaryCodec,
    process_set: hvd.ProcessSet,
    divisor: int,
) -> Exchange:
    """Return the exchange of that name; ``"auto"`` takes the one that sends least."""
    if choice == "auto":
        num_ranks = int(process_set.size())
        block = ops.block_values(codec.config.wire_format)
        choice = cheapest_exchange(
            num_ranks,
            8 * ops.BLOCK_BYTES / block,
            LevelsCodec(num_ranks).bits_per_value,
        )
    return _KINDS[choice](codec, process_set, divisor)

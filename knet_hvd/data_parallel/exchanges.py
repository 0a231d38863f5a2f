"""Exchanges: how packed codes cross the network and come back as gradients.

An exchange is a generator: it starts a Horovod operation, yields its handle, and goes
on with the result once somebody sends it in. So nothing here waits, and the steps of
several buckets can be in flight at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import LevelsCodec, TernaryCodec
from knet_hvd.data_parallel.buckets import Chunk, TernaryBucket
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


class AllgatherExchange(Exchange):
    """Every rank receives every payload and adds them itself; best for few ranks."""

    __slots__ = ()

    def run(
        self,
        bucket: TernaryBucket,
        payloads: Iterator[Tensor],
        scales: Tensor,
        outputs: list[Tensor],
    ) -> Steps:
        """See ``Exchange.run``."""
        handles = [
            hvd.allgather_async(
                payload,
                name=f"knet_hvd.codes.{chunk.name}",
                process_set=self.process_set,
            )
            for chunk, payload in zip(bucket.chunks, payloads, strict=True)
        ]
        for chunk, handle in zip(bucket.chunks, handles, strict=True):
            gathered = yield handle
            with torch.profiler.record_function("knet_hvd::decode"):
                self._decode(chunk, gathered.view(self.num_ranks, -1), scales, outputs)

    def _decode(
        self, chunk: Chunk, payloads: Tensor, scales: Tensor, outputs: list[Tensor]
    ) -> None:
        for part in chunk.slices:
            self.codec.decode(
                payloads.narrow(1, *part.payload),
                scales.narrow(0, *part.scales),
                outputs[part.parameter].narrow(0, *part.values),
                self.divisor,
            )

    def wire_bytes(self, chunk: Chunk) -> float:
        """See ``Exchange.wire_bytes``."""
        return allgather_bytes(chunk.payload_bytes, self.num_ranks)


class AlltoallExchange(Exchange):
    """Each rank adds one shard of all ranks' codes, then the levels are gathered.

    What a server does in the paper, spread over the ranks; the sums stay exact.
    """

    __slots__ = ()

    @property
    def levels(self) -> LevelsCodec:
        """The codec of the sums."""
        return LevelsCodec(self.num_ranks)

    def _shards(self, chunk: Chunk) -> list[int]:
        """Return the bytes of each rank's shard, whole blocks."""
        blocks, ranks = chunk.payload_bytes // ops.BLOCK_BYTES, self.num_ranks
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
        payloads: Iterator[Tensor],
        scales: Tensor,
        outputs: list[Tensor],
    ) -> Steps:
        """See ``Exchange.run``."""
        codes = [
            hvd.alltoall_async(
                payload,
                splits=torch.tensor(self._shards(chunk), dtype=torch.int32),
                name=f"knet_hvd.codes.{chunk.name}",
                process_set=self.process_set,
            )
            for chunk, payload in zip(bucket.chunks, payloads, strict=True)
        ]
        levels = []
        for chunk, handle in zip(bucket.chunks, codes, strict=True):
            received, _ = yield handle
            with torch.profiler.record_function("knet_hvd::sum"):
                words = self._pack_own_sums(chunk, received)
            name = f"knet_hvd.levels.{chunk.name}"
            levels.append(
                hvd.allgather_async(words, name=name, process_set=self.process_set)
            )
        for chunk, handle in zip(bucket.chunks, levels, strict=True):
            gathered = yield handle
            with torch.profiler.record_function("knet_hvd::decode"):
                self._decode(chunk, gathered, scales, outputs)

    def _pack_own_sums(self, chunk: Chunk, received: Tensor) -> Tensor:
        """Add all ranks' codes of this rank's shard; return the words."""
        num_bytes = self._shards(chunk)[self.process_set.rank()]
        payloads = received.view(self.num_ranks, num_bytes)
        numel = self._values(num_bytes)
        sums = torch.empty(numel, dtype=torch.int16, device=payloads.device)
        ops.unpack_sum(payloads, self.codec.config.wire_format, sums)
        return self.levels.pack(sums)

    def _decode(
        self, chunk: Chunk, words: Tensor, scales: Tensor, outputs: list[Tensor]
    ) -> None:
        """Unpack the words of all shards and decode their sums."""
        values = [self._values(shard) for shard in self._shards(chunk)]
        counts = [self.levels.num_words(numel) for numel in values]
        sums = torch.empty(sum(values), dtype=torch.int16, device=words.device)
        for shard, out in zip(words.split(counts), sums.split(values), strict=True):
            self.levels.unpack(shard, out)
        for part in chunk.slices:
            first, count = part.values
            self.codec.dequantize(
                sums.narrow(0, part.sums, count),
                scales.narrow(0, *part.scales),
                outputs[part.parameter].narrow(0, first, count),
                self.divisor,
            )

    def wire_bytes(self, chunk: Chunk) -> float:
        """See ``Exchange.wire_bytes``."""
        shards, ranks = self._shards(chunk), self.num_ranks
        words = [self.levels.num_words(self._values(shard)) for shard in shards]
        codes = alltoall_bytes(chunk.payload_bytes, ranks)
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

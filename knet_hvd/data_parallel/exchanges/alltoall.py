"""Exchange by all-to-all: each rank adds one shard, then sums are gathered."""

from collections.abc import Iterator

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import LevelsCodec
from knet_hvd.data_parallel.buckets.plan import Chunk, TernaryBucket
from knet_hvd.data_parallel.exchanges.base import Exchange, Steps
from knet_hvd.performance import allgather_bytes, alltoall_bytes


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
            (end - begin) * ops.BLOCK_BYTES for begin, end in zip([0, *ends], ends, strict=False)
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
            levels.append(hvd.allgather_async(words, name=name, process_set=self.process_set))
        for chunk, handle in zip(bucket.chunks, levels, strict=True):
            gathered = yield handle
            with torch.profiler.record_function("knet_hvd::decode"):
                self._decode(chunk, gathered, scales, outputs)

    def _pack_own_sums(self, chunk: Chunk, received: Tensor) -> Tensor:
        """Add all ranks' codes of this rank's shard; return the words."""
        num_bytes = self._shards(chunk)[self.process_set.rank()]
        payloads = received.view(self.num_ranks, num_bytes)
        numel = self._values(num_bytes)
        device = received.device
        sums = self.buffers.get("sums", numel, torch.int16, device)
        ops.unpack_sum(payloads, self.codec.config.wire_format, sums)
        size = self.levels.num_words(numel)
        words = self.buffers.get(f"levels {chunk.name}", size, torch.int64, device)
        return self.levels.pack(sums, words)

    def _decode(self, chunk: Chunk, words: Tensor, scales: Tensor, outputs: list[Tensor]) -> None:
        """Unpack the words of all shards and decode their sums."""
        values = [self._values(shard) for shard in self._shards(chunk)]
        counts = [self.levels.num_words(numel) for numel in values]
        sums = self.buffers.get("sums", sum(values), torch.int16, words.device)
        for shard, out in zip(words.split(counts), sums.split(values), strict=True):
            self.levels.unpack(shard, out)
        own_scales = scales.narrow(0, *chunk.scales)
        self.codec.dequantize(sums, own_scales, chunk.parts(outputs), self.divisor)

    def wire_bytes(self, chunk: Chunk) -> float:
        """See ``Exchange.wire_bytes``."""
        shards, ranks = self._shards(chunk), self.num_ranks
        words = [self.levels.num_words(self._values(shard)) for shard in shards]
        codes = alltoall_bytes(chunk.payload_bytes, ranks)
        return codes + allgather_bytes(8 * sum(words) / ranks, ranks)

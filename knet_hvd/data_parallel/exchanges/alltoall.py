"""Exchange by all-to-all: each rank adds one shard, then sums are gathered."""

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import LevelsCodec
from knet_hvd.data_parallel.buckets.payload import PayloadPlan
from knet_hvd.data_parallel.exchanges.base import CodedBucket, Exchange, Reduction
from knet_hvd.performance import ALLTOALL


class AlltoallExchange(Exchange):
    """Each rank adds one shard of all ranks' codes, then the levels are gathered.

    What a server does in the paper, spread over the ranks; the sums stay exact.
    """

    __slots__ = ()
    formula = ALLTOALL

    @property
    def levels(self) -> LevelsCodec:
        """The codec of the sums."""
        return LevelsCodec(self.collectives.size)

    def run(self, coded: CodedBucket) -> Reduction:
        """See ``Exchange.run``."""
        rank, num_ranks = self.collectives.rank, self.collectives.size
        codes = []
        for plan, payload in coded.encoded():
            shards = self._shard_bytes(plan)
            received_sizes = [shards[rank]] * num_ranks
            name = f"codes.{plan.name}"
            codes.append(self.collectives.all_to_all(payload, shards, received_sizes, name))
        levels = []
        for plan, handle in zip(coded.plan.payloads, codes, strict=True):
            received = yield handle
            with torch.profiler.record_function("knet_hvd::sum"):
                words = self._pack_own_sums(plan, received)
            sizes = [words.numel()] * num_ranks
            levels.append(self.collectives.all_gather(words, sizes, f"levels.{plan.name}"))
        for plan, handle in zip(coded.plan.payloads, levels, strict=True):
            gathered = yield handle
            with torch.profiler.record_function("knet_hvd::decode"):
                self._decode(plan, gathered, coded)

    def _shard_bytes(self, plan: PayloadPlan) -> list[int]:
        """Return the bytes of each rank's shard, whole blocks."""
        blocks, ranks = plan.num_bytes // ops.BLOCK_BYTES, self.collectives.size
        ends = [blocks * (rank + 1) // ranks for rank in range(ranks)]
        return [
            (end - begin) * ops.BLOCK_BYTES for begin, end in zip([0, *ends], ends, strict=False)
        ]

    def _shard_values(self, plan: PayloadPlan) -> list[int]:
        """Return the codes of each rank's shard."""
        values_per_byte = ops.block_values(self.codec.config.wire_format) // ops.BLOCK_BYTES
        return [num_bytes * values_per_byte for num_bytes in self._shard_bytes(plan)]

    def _shard_words(self, plan: PayloadPlan) -> list[int]:
        """Return the words that the sums of each rank's shard fill."""
        return [self.levels.num_words(numel) for numel in self._shard_values(plan)]

    def _pack_own_sums(self, plan: PayloadPlan, received: Tensor) -> Tensor:
        """Add all ranks' codes of this rank's shard; return the words.

        All ranks return as many, those of the largest shard: NCCL gathers equal sizes in one
        operation, and others in one for each rank.
        """
        numel = self._shard_values(plan)[self.collectives.rank]
        num_bytes = self._shard_bytes(plan)[self.collectives.rank]
        payloads = received.view(self.collectives.size, num_bytes)
        device = received.device
        sums = self.buffers.get("sums", numel, torch.int16, device)
        ops.unpack_sum(payloads, self.codec.config.wire_format, sums)
        size = max(self._shard_words(plan))
        words = self.buffers.get(f"levels {plan.name}", size, torch.int64, device)
        self.levels.pack(sums, words.narrow(0, 0, self.levels.num_words(numel)))
        return words

    def _decode(self, plan: PayloadPlan, words: Tensor, coded: CodedBucket) -> None:
        """Unpack the words of all shards and decode their sums."""
        values = self._shard_values(plan)
        sums = self.buffers.get("sums", sum(values), torch.int16, words.device)
        shards = words.view(self.collectives.size, -1)
        for shard, out in zip(shards, sums.split(values), strict=True):
            self.levels.unpack(shard.narrow(0, 0, self.levels.num_words(out.numel())), out)
        outputs = coded.outputs_of(plan)
        self.codec.dequantize(sums, coded.scales_of(plan), outputs, self.divisor)

"""Exchange by all-gather: every rank adds all payloads itself."""

from collections.abc import Iterator

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.data_parallel.buckets.plan import Chunk, TernaryBucket
from knet_hvd.data_parallel.exchanges.base import Exchange, Steps
from knet_hvd.performance import allgather_bytes


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
                payload, name=f"knet_hvd.codes.{chunk.name}", process_set=self.process_set
            )
            for chunk, payload in zip(bucket.chunks, payloads, strict=True)
        ]
        for chunk, handle in zip(bucket.chunks, handles, strict=True):
            gathered = yield handle
            with torch.profiler.record_function("knet_hvd::decode"):
                self.codec.decode(
                    gathered.view(self.num_ranks, -1),
                    scales.narrow(0, *chunk.scales),
                    chunk.parts(outputs),
                    self.divisor,
                )

    def wire_bytes(self, chunk: Chunk) -> float:
        """See ``Exchange.wire_bytes``."""
        return allgather_bytes(chunk.payload_bytes, self.num_ranks)

"""Exchange by all-gather: every rank adds all payloads itself."""

from collections.abc import Iterator

import torch
from torch import Tensor

from knet_hvd.data_parallel.buckets.plan import TernaryBucket
from knet_hvd.data_parallel.exchanges.base import Exchange, Reduction
from knet_hvd.performance import ALLGATHER


class AllgatherExchange(Exchange):
    """Every rank receives every payload and adds them itself; best for few ranks."""

    __slots__ = ()
    formula = ALLGATHER

    def run(
        self,
        bucket: TernaryBucket,
        payloads: Iterator[Tensor],
        scales: Tensor,
        outputs: list[Tensor],
    ) -> Reduction:
        """See ``Exchange.run``."""
        num_ranks = self.collectives.size
        handles = [
            self.collectives.all_gather(payload, [plan.num_bytes] * num_ranks, f"codes.{plan.name}")
            for plan, payload in zip(bucket.payloads, payloads, strict=True)
        ]
        for plan, handle in zip(bucket.payloads, handles, strict=True):
            gathered = yield handle
            with torch.profiler.record_function("knet_hvd::decode"):
                self.codec.decode(
                    gathered.view(num_ranks, -1),
                    scales.narrow(0, *plan.scales),
                    plan.parts(outputs),
                    self.divisor,
                )

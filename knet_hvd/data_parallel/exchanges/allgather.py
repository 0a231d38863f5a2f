"""Exchange by all-gather: every rank adds all payloads itself."""

import torch

from knet_hvd.data_parallel.exchanges.base import CodedBucket, Exchange, Reduction
from knet_hvd.performance import ALLGATHER


class AllgatherExchange(Exchange):
    """Every rank receives every payload and adds them itself; best for few ranks."""

    __slots__ = ()
    formula = ALLGATHER

    def run(self, coded: CodedBucket) -> Reduction:
        """See ``Exchange.run``."""
        num_ranks = self.collectives.size
        handles = [
            self.collectives.all_gather(payload, [plan.num_bytes] * num_ranks, f"codes.{plan.name}")
            for plan, payload in coded.encoded()
        ]
        for plan, handle in zip(coded.plan.payloads, handles, strict=True):
            gathered = yield handle
            with torch.profiler.record_function("knet_hvd::decode"):
                self.codec.decode(
                    gathered.view(num_ranks, -1),
                    coded.scales_of(plan),
                    coded.outputs_of(plan),
                    self.divisor,
                )

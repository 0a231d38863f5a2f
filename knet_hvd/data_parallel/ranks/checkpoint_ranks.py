"""All ranks of Horovod, as checkpoints need them."""

from collections.abc import Callable, Sequence

import horovod.torch as hvd
import torch

from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks

_PATIENCE_S = 600.0
"""How long ranks wait for each other while they read and write shards of any size."""


class HorovodRanks:
    """Implement ``knet_hvd.checkpoint.Ranks``."""

    @property
    def rank(self) -> int:
        """Return the number of this process."""
        return int(hvd.rank())

    @property
    def size(self) -> int:
        """Return the number of processes."""
        return int(hvd.size())

    def gather_texts(self, text: str, what: str, *, after_disk: bool = False) -> list[str]:
        """Return the texts of all ranks: see ``Ranks``. The watchdog ends a hung job earlier."""
        return CollectiveRanks(HorovodCollectives(), _PATIENCE_S).gather_text(text, what)

    def start_maximum(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """Begin to compare numbers: see ``Ranks``; one comparison at a time."""
        own = torch.tensor(list(values), dtype=torch.int32)
        if hvd.size() == 1:
            return own.tolist
        handle = hvd.allreduce_async(own, op=hvd.Max, name="knet_hvd.job_flags")

        def finish() -> list[int]:
            maxima: list[int] = hvd.synchronize(handle).tolist()
            return maxima

        return finish

"""Numbers that tell the optimizers of a process apart, the same on all ranks."""

from knet_hvd.collectives import Collectives
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks

_num_taken = 0


def take_number(collectives: Collectives, timeout_s: float | None = None) -> int:
    """Return a number that no optimizer on these ranks has had; call it on all of them.

    Ranks may have made different numbers of optimizers before: a rank of an elastic job that is new
    has made none.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    global _num_taken
    number = CollectiveRanks(collectives, timeout_s).maximum(_num_taken, "number of the optimizer")
    _num_taken = number + 1
    return number

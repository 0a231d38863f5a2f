"""Find that the ranks of a job have changed under an optimizer that was made for others."""

from dataclasses import dataclass

import horovod.torch as hvd

from knet_hvd.errors import KnetError


@dataclass(frozen=True, slots=True)
class FixedRanks:
    """The ranks that an optimizer was made for."""

    rank: int
    num_ranks: int

    @classmethod
    def now(cls) -> "FixedRanks":
        """Return the ranks that Horovod has now."""
        return cls(hvd.rank(), hvd.size())

    def check(self, maker: str) -> None:
        """Check that Horovod still has these ranks.

        Args:
            maker: What has to be called again if not.

        Raises:
            KnetError: If this rank's number or the number of ranks is another.
        """
        if hvd.is_initialized() and (hvd.rank(), hvd.size()) == (self.rank, self.num_ranks):
            return
        now = f"{hvd.rank()} of {hvd.size()}" if hvd.is_initialized() else "without Horovod"
        raise KnetError(
            f"this process was rank {self.rank} of {self.num_ranks} when {maker} was called, and "
            f"is {now} now. Make the optimizer again after every change of the workers, in the "
            f"function that hvd.elastic.run decorates: {maker}(...), then load_state_dict(...)"
        )

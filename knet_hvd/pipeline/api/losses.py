"""The loss of each step, which the last stage knows and all ranks want."""

from collections.abc import Sequence

from knet_hvd.comm import World
from knet_hvd.comm.reports import Reports


class StepLosses:
    """Bring the losses of the last stage's replicas to all ranks, as their mean."""

    def __init__(self, world: World, last_ranks: Sequence[int]) -> None:
        """Open the ways; every rank has to call.

        Args:
            world: All ranks.
            last_ranks: The ranks that hold the last stage.
        """
        self._own = None
        self._reports = []
        for source in last_ranks:
            others = [rank for rank in world.ranks if rank != source]
            reports = Reports(world, source, others)
            self._reports.append(reports)
            if source == world.rank:
                self._own = reports

    def report(self, step: int, loss: float) -> None:
        """Send the loss of this rank's share of a step; the last stage calls."""
        if self._own is not None:
            self._own.report(step, loss)

    def latest(self, at_least: int) -> float:
        """Return the newest loss that is there.

        Args:
            at_least: Wait until that of this step has come, if it has not.

        Raises:
            KnetError: If it does not come in time.
        """
        return sum(each.latest(at_least) for each in self._reports) / len(self._reports)

    def close(self) -> None:
        """Wait until everything is sent, and expect nothing more."""
        for each in self._reports:
            each.close()

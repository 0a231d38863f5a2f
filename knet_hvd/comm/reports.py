"""A number that one rank reports to all others, such as the loss of a step."""

from collections import deque

import numpy as np
from mpi4py import MPI

from knet_hvd.comm.waiting import poll
from knet_hvd.comm.world import World

_TAG = 6
_WHAT = "the loss of a step"


class Reports:
    """Carry one number a step from a rank to others, which need not wait for it."""

    def __init__(self, world: World, source: int, targets: list[int]) -> None:
        """Open the way.

        Args:
            world: This process; every source and target has to call.
            source: The rank that reports.
            targets: Those that it reports to.
        """
        self._world = world
        self._source = source
        self._targets = targets
        self._sent: deque[tuple[MPI.Request, object]] = deque()
        self._latest: tuple[int, float] | None = None
        self._buffer = np.empty(2)
        self._request = MPI.REQUEST_NULL
        if world.rank != source:
            self._post()

    def _post(self) -> None:
        self._request = self._world.comm.Irecv(self._buffer, self._source, _TAG)

    def report(self, step: int, value: float) -> None:
        """Send the number of a step to all; only the source calls it."""
        self._latest = (step, value)
        while self._sent and self._sent[0][0].Test():
            self._sent.popleft()
        message = np.array([step, value])
        for rank in self._targets:
            self._sent.append((self._world.comm.Isend(message, rank, _TAG), message))

    def latest(self, at_least: int) -> float:
        """Return the newest number that is there.

        Args:
            at_least: Wait until that of this step has come, if it has not.

        Raises:
            KnetError: If it does not come in time.
        """
        while poll(self._take, _WHAT):
            pass
        while self._latest is None or self._latest[0] < at_least:
            self._world.waiter.until(self._take, f"rank {self._world.rank}: waiting for {_WHAT}")
        return self._latest[1]

    def _take(self) -> bool:
        """Take one number, if one has come."""
        if self._request == MPI.REQUEST_NULL or not self._request.Test():
            return False
        self._latest = (int(self._buffer[0]), float(self._buffer[1]))
        self._post()
        return True

    def close(self) -> None:
        """Wait until everything is sent, and expect nothing more."""
        for request, _ in self._sent:
            self._world.waiter.until(lambda each=request: bool(each.Test()), _WHAT)  # type: ignore[misc]
        self._sent.clear()
        if self._request != MPI.REQUEST_NULL:
            self._request.Cancel()
            self._request.Wait()

"""Wait for other ranks: leave them the core, and do not wait for ever."""

import os
import time
from collections.abc import Callable

from mpi4py import MPI

from knet_hvd.comm.notices import NoticeError, Notices
from knet_hvd.deadline import Deadline
from knet_hvd.errors import KnetError

_NUM_YIELDS = 20
_FIRST_SLEEP_S = 5e-5
_LAST_SLEEP_S = 1e-3
_NOTICE_S = 0.1
"""How long after a notice to wait: ranks that meet the same error have more to say of it."""


class Waiter:
    """Poll until something has happened, and count the time that this took.

    Ranks may outnumber cores, so that a rank that spins takes the core of the one that
    it waits for: a few polls only yield, later ones sleep for up to a millisecond.

    Attributes:
        timeout_s: The longest single wait.
        idle_s: Seconds waited since the start.
        notices: What other ranks tell this one while it waits, if they can.
    """

    def __init__(self, timeout_s: float) -> None:
        """Start with no time waited.

        Args:
            timeout_s: The longest single wait, counted as ``Deadline`` does.

        Raises:
            ValueError: If it is not positive.
        """
        if not timeout_s > 0:
            raise ValueError(f"timeout_s: expected > 0, got {timeout_s}")
        self.timeout_s = timeout_s
        self.idle_s = 0.0
        self.notices: Notices | None = None

    def until(self, ready: Callable[[], bool], what: str, timeout_factor: float = 1.0) -> None:
        """Return as soon as ``ready()`` holds.

        Args:
            ready: Polled; usually the test of an MPI request.
            what: What is waited for, for the message.
            timeout_factor: How many timeouts to wait.

        Raises:
            KnetError: If it does not hold in time, or MPI fails.
            NoticeError: If another rank tells why it will not hold.
        """
        if poll(ready, what):
            return
        start = time.perf_counter()
        limit_s = self.timeout_s * timeout_factor
        deadline = Deadline(limit_s)
        told: Deadline | None = None
        polls, sleep_s = 0, _FIRST_SLEEP_S
        while not poll(ready, what):
            polls += 1
            if polls <= _NUM_YIELDS:
                os.sched_yield()
                continue
            reason = None if self.notices is None else self.notices.reason()
            if reason is not None:
                told = told or Deadline(_NOTICE_S)
                if told.has_passed():
                    raise NoticeError(reason)
            if deadline.has_passed():
                raise KnetError(
                    f"{what}: nothing came within {limit_s:g} s. Is the other "
                    "rank lost, or slower than the timeout allows?"
                )
            time.sleep(sleep_s)
            sleep_s = min(sleep_s * 1.5, _LAST_SLEEP_S)
        self.idle_s += time.perf_counter() - start


def poll(ready: Callable[[], bool], what: str) -> bool:
    """Return ``ready()``, with MPI's errors as the package's own.

    Raises:
        KnetError: If MPI reports an error, such as a lost connection.
    """
    try:
        return ready()
    except MPI.Exception as error:
        raise KnetError(f"{what}: MPI failed: {error.Get_error_string()}") from error

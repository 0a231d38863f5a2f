"""This process among all processes of the job."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np
from mpi4py import MPI

from knet_hvd.comm.notices import NoticeError, Notices
from knet_hvd.comm.progress import ProgressThread
from knet_hvd.comm.roll_call import RollCall
from knet_hvd.comm.waiting import Waiter
from knet_hvd.deadline import Deadline
from knet_hvd.errors import KnetError

DEFAULT_TIMEOUT_S = 25.0


class World:
    """Hold a communicator of our own over all ranks.

    It is a copy of MPI's world, so that our messages cannot meet those of other
    libraries in the same process, such as Horovod.

    Attributes:
        comm: The communicator, for the links.
        rank: This process.
        size: The number of processes.
        waiter: How this rank waits; knows how long it was idle.
        notices: What ranks tell each other when one gives up.
    """

    def __init__(
        self, timeout_s: float = DEFAULT_TIMEOUT_S, start_timeout_s: float | None = None
    ) -> None:
        """Join all ranks; every rank has to.

        Args:
            timeout_s: The longest wait for another rank.
            start_timeout_s: The same until ``end_start``, if it is longer: a rank may still
                be reading its programs and data from a slow disk.

        Raises:
            KnetError: If some rank does not come in time; names it.
        """
        self._timeout_s = timeout_s
        self.waiter = Waiter(max(timeout_s, start_timeout_s or 0.0))
        self._is_starting = start_timeout_s is not None
        self._num_waits = 0
        self.rank = MPI.COMM_WORLD.Get_rank()
        self.size = MPI.COMM_WORLD.Get_size()
        # Not Dup(): it would wait for a missing rank for ever.
        self.comm, request = MPI.COMM_WORLD.Idup()
        self._wait(request, "all ranks to join")
        self.notices = self.waiter.notices = Notices(self.comm)
        self._progress: ProgressThread | None = None

    def end_start(self) -> None:
        """Wait until all ranks are ready; from now on none may be silent for long."""
        if self._is_starting:
            self.gather_text("", "all ranks to be ready")
            self._is_starting = False
            self.waiter.timeout_s = self._timeout_s

    @property
    def ranks(self) -> Sequence[int]:
        """The numbers of all processes."""
        return range(self.size)

    def hosts(self) -> list[str]:
        """Return the host's name of each rank; every rank has to call it.

        Raises:
            KnetError: If some rank does not take part in time.
        """
        return self.gather_text(MPI.Get_processor_name(), "the hosts' names")

    def start_progress(self) -> None:
        """Move messages while this rank computes, until ``stop_progress``.

        Raises:
            KnetError: If this MPI does not permit it.
        """
        if self._progress is None:
            self._progress = ProgressThread(self.comm)

    def stop_progress(self) -> None:
        """Stop what ``start_progress`` started; without it, do nothing."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def gather_text(
        self,
        text: str,
        what: str,
        timeout_factor: float = 1.0,
        on_wait: Callable[[], None] | None = None,
    ) -> list[str]:
        """Return the texts of all ranks, by rank; every rank has to call it.

        Args:
            text: This rank's.
            what: What it is, for the message.
            timeout_factor: How many timeouts to wait.
            on_wait: Called again and again while this rank waits, such as to receive what
                would block another rank.

        Raises:
            KnetError: If some rank does not take part in time.
            NoticeError: If another rank has told that it will not.
        """
        self.notices.check()
        own = np.frombuffer(text.encode(), dtype=np.uint8)
        lengths = np.empty(self.size, dtype=np.int64)
        length = np.array([own.size], dtype=np.int64)
        self._wait(self.comm.Iallgather(length, lengths), what, timeout_factor, on_wait)
        ends = np.cumsum(lengths)
        table = np.empty(int(ends[-1]), dtype=np.uint8)
        target = [table, lengths.tolist(), (ends - lengths).tolist(), MPI.BYTE]
        self._wait(self.comm.Iallgatherv([own, MPI.BYTE], target), what, 1.0, on_wait)
        return [part.tobytes().decode(errors="replace") for part in np.split(table, ends[:-1])]

    def start_maximum(
        self,
        values: Sequence[int],
        what: str,
        timeout_factor: float = 1.0,
        on_wait: Callable[[], None] | None = None,
    ) -> Callable[[], list[int]]:
        """Begin to compare numbers of all ranks; every rank has to call it.

        Args:
            values: This rank's, as many on all ranks, below 2^31.
            what: What they are, for the message.
            timeout_factor: How many timeouts to wait.
            on_wait: As in `gather_text`.

        Returns:
            A function that waits for the maxima over all ranks and returns them; it
            raises KnetError if some rank does not take part in time.
        """
        own = np.array(values, dtype=np.int32)
        maxima = np.empty_like(own)
        request = self.comm.Iallreduce(own, maxima, op=MPI.MAX)

        def finish() -> list[int]:
            self._wait(request, what, timeout_factor, on_wait)
            return [int(value) for value in maxima]

        return finish

    def _wait(
        self,
        request: MPI.Request,
        what: str,
        timeout_factor: float = 1.0,
        on_wait: Callable[[], None] | None = None,
    ) -> None:
        self._num_waits += 1
        roll_call = RollCall(f"{what} {self._num_waits}") if self._is_starting else None

        def ready() -> bool:
            if on_wait is not None:
                on_wait()
            if roll_call is not None:
                roll_call.tick()
            return bool(request.Test())

        try:
            self.waiter.until(ready, f"rank {self.rank}: waiting for {what}", timeout_factor)
        except KnetError as error:
            if roll_call is None or isinstance(error, NoticeError):
                raise
            absent = roll_call.absent()
            if not absent:
                raise
            raise KnetError(f"{error} Missing: {', '.join(map(str, absent))}.") from error

    def close(self) -> None:
        """Give the communicator back; every rank has to call it."""
        self.stop_progress()
        if self.notices.close():  # else other ranks are lost, and messages may be under way
            self.comm.Free()


def abort(code: int = 1) -> NoReturn:
    """End all ranks at once, without waiting for any of them.

    Leaving by an exception instead would have MPI wait for the other ranks.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    MPI.COMM_WORLD.Abort(code)
    os._exit(code)  # not reached, unless MPI lets us


def leave(grace_s: float, code: int = 1) -> NoReturn:
    """End this rank as soon as all others end too; end them if they do not in time.

    Where all ranks have met the same error and said so, nobody has to be ended by force,
    and the launcher adds the least to what they said.

    Args:
        grace_s: The time that other ranks have.
        code: The exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    everybody = MPI.COMM_WORLD.Ibarrier()
    deadline = Deadline(grace_s)
    while not everybody.Test():
        if deadline.has_passed():
            abort(code)
        time.sleep(0.01)
    os._exit(code)  # MPI's own end would wait for messages that are under way

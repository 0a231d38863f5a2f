"""Notices: short texts from one rank to all others, which may be waiting for it in vain."""

import contextlib
import struct
import time

import numpy as np
from mpi4py import MPI

from knet_hvd.deadline import Deadline
from knet_hvd.errors import KnetError

_TAG = 98
_FAILED, _LEFT = 0, 1
_HEADER = struct.Struct("<BIQ")
"""Kind, loop, number of steps; the text follows."""
_MAX_TEXT_BYTES = 4000
_CLOSE_S = 2.0


class NoticeError(KnetError):
    """Report what another rank has told: it has failed, or ended training too early."""


class Notices:
    """Tell all other ranks what they would otherwise find out by waiting in vain.

    Messages are small and posted without waiting. A rank looks for them while it waits for
    something else, so that a training step which waits for nothing costs nothing.

    Attributes:
        step: The training step that this rank is in, counted from 0; its caller sets it.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        """Start with nothing told.

        Args:
            comm: Holds all ranks.
        """
        self.step: int | None = None
        self._comm = comm
        self._rank: int = comm.Get_rank()
        self._others = [rank for rank in range(comm.Get_size()) if rank != self._rank]
        self._sent: list[tuple[MPI.Request, bytes]] = []
        self._num_posted = 0
        self._num_taken = dict.fromkeys(self._others, 0)
        self._status = MPI.Status()
        self._failure: str | None = None
        self._has_failed = False
        self._loop = 0
        self._left_after: int | None = None
        self._others_left: dict[tuple[int, int], int] = {}
        """Steps by loop and rank."""

    def fail(self, text: str) -> None:
        """Tell the others why this rank is about to raise.

        Nothing is sent if another rank has said so before: it has told everybody. Nor does
        this method raise, as its caller has something else to raise.

        Args:
            text: For the errors that all others raise; its first 4000 bytes count.
        """
        with contextlib.suppress(MPI.Exception):
            self._take()
            if self._failure is None and not self._has_failed:
                self._has_failed = True
                self._post(_FAILED, 0, text)

    def leave_steps(self, num_steps: int) -> None:
        """Tell the others that this rank has ended its training steps, until `begin_steps`.

        Args:
            num_steps: Steps that it has run, counted as in ``step``.
        """
        self._left_after = num_steps
        self._post(_LEFT, num_steps, "")

    def begin_steps(self) -> None:
        """Begin the next loop of training steps; all ranks have as many loops."""
        self._loop += 1
        self._left_after = self.step = None
        left = self._others_left.items()
        self._others_left = {key: steps for key, steps in left if key[0] >= self._loop}

    def check(self) -> None:
        """Look for notices, and raise if this rank would wait in vain.

        Raises:
            NoticeError: If another rank has failed, or has ended training after another
                number of steps than this one.
        """
        reason = self.reason()
        if reason is not None:
            raise NoticeError(reason)

    def reason(self) -> str | None:
        """Return what `check` would raise, None for nothing."""
        with contextlib.suppress(MPI.Exception):  # whoever waits meets the same error
            self._take()
        if self._failure is not None:
            return self._failure
        for (loop, rank), num_steps in self._others_left.items():
            if loop == self._loop and self._is_in_vain(num_steps):
                return (
                    f"rank {rank} ended training after {num_steps} steps, rank {self._rank} "
                    f"{self._own_position()}: loaders have to end at the same time on every rank"
                )
        return None

    def _is_in_vain(self, num_steps: int) -> bool:
        """Return whether this rank needs more, or other, steps than another has run."""
        if self._left_after is not None:
            return num_steps != self._left_after
        return self.step is not None and num_steps <= self.step

    def _own_position(self) -> str:
        if self._left_after is not None:
            return f"after {self._left_after}"
        return f"is in step {(self.step or 0) + 1}"

    def _post(self, kind: int, num_steps: int, text: str) -> None:
        self._sent = [each for each in self._sent if not each[0].Test()]
        message = _HEADER.pack(kind, self._loop, num_steps) + text.encode()[:_MAX_TEXT_BYTES]
        for rank in self._others:
            request = self._comm.Isend([message, MPI.BYTE], rank, _TAG)
            self._sent.append((request, message))
        self._num_posted += 1

    def _take(self) -> None:
        """Receive all notices that have come."""
        while self._comm.Iprobe(MPI.ANY_SOURCE, _TAG, self._status):
            source = self._status.Get_source()
            message = bytearray(self._status.Get_count(MPI.BYTE))
            self._comm.Recv([message, MPI.BYTE], source, _TAG)
            self._num_taken[source] += 1
            kind, loop, num_steps = _HEADER.unpack_from(message.ljust(_HEADER.size, b"\xff"))
            text = message[_HEADER.size :].decode(errors="replace")
            if kind == _FAILED and self._failure is None:
                self._failure = f"rank {source} failed: {text.removeprefix(f'rank {source}: ')}"
            elif kind == _LEFT and loop >= self._loop:
                self._others_left[loop, source] = num_steps

    def close(self) -> bool:
        """Take what others have posted, and wait for their taking; every rank has to call.

        What is left on a communicator could come out of the next one.

        Returns:
            Whether everything was taken: False if the other ranks do not come in 2 s.
        """
        if not self._others:
            return True
        self._own_count = np.array([self._num_posted], dtype=np.int64)
        self._counts = np.zeros(len(self._others) + 1, dtype=np.int64)
        counted = self._comm.Iallgather(self._own_count, self._counts)
        deadline = Deadline(_CLOSE_S)
        while not (counted.Test() and self._all_taken()):
            if deadline.has_passed():
                return False
            time.sleep(0.001)
        return True

    def _all_taken(self) -> bool:
        self._take()
        taken = all(self._counts[rank] == number for rank, number in self._num_taken.items())
        return taken and all(request.Test() for request, _ in self._sent)

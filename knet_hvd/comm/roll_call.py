"""Find out which ranks are missing where a wait for all of them ends in vain."""

import time
import zlib

from mpi4py import MPI

_TAG = 32_100  # every MPI permits 32,767
_SILENCE_S = 2.0
_LISTEN_S = 3.0


class RollCall:
    """Let ranks that wait for others tell each other that they are here.

    A rank that has waited for two seconds says so to all others, once. Where a wait ends
    in vain, the ranks that have said nothing are the missing ones. A wait that ends sooner
    sends nothing.
    """

    def __init__(self, what: str) -> None:
        """Start to wait for all ranks of MPI's world.

        Args:
            what: What they wait for, the same text on all ranks, and another one for
                every wait: earlier messages must not count.
        """
        self._comm = MPI.COMM_WORLD
        self._call = zlib.crc32(what.encode()).to_bytes(4, "little")
        self._silent = set(range(self._comm.Get_size())) - {self._comm.Get_rank()}
        self._start_s = time.monotonic()
        self._sent: list[MPI.Request] = []

    def tick(self) -> None:
        """Tell the others, if it is time; to be called again and again while waiting."""
        if self._sent or MPI.Is_finalized():
            return
        if time.monotonic() - self._start_s > _SILENCE_S:
            # Nobody waits for these: a missing rank never takes its message.
            self._sent = [self._comm.Isend(self._call, rank, _TAG) for rank in sorted(self._silent)]

    def absent(self) -> list[int]:
        """Return the ranks that have not said that they are here; takes up to 3 s."""
        self._start_s = min(self._start_s, time.monotonic() - _SILENCE_S - 1)
        self.tick()
        end_s = time.monotonic() + _LISTEN_S
        status = MPI.Status()
        # A rank that gave up sooner has Horovod end MPI on all ranks.
        while self._silent and time.monotonic() < end_s and not MPI.Is_finalized():
            if not self._comm.Iprobe(MPI.ANY_SOURCE, _TAG, status):
                time.sleep(0.01)
                continue
            received = bytearray(4)
            self._comm.Recv(received, status.Get_source(), _TAG)
            if received == self._call:
                self._silent.discard(status.Get_source())
        return sorted(self._silent)

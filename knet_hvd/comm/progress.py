"""Keep messages moving while this rank computes.

Most MPI libraries move large messages only inside calls to them: a frame on a network
would stand still for as long as a rank is in its forward pass. A thread that calls MPI
now and then lets it read and write sockets in that time. Within a host it is not needed:
the receiver copies a frame at once when it asks for it.
"""

import atexit
import threading

from mpi4py import MPI

from knet_hvd.errors import KnetError

_INTERVAL_S = 0.002
"""What a socket holds lasts longer, on networks of up to about 1 Gbit/s."""
_TAG = 99
"""No message has it."""


class ProgressThread:
    """Call MPI every two milliseconds until stopped."""

    def __init__(self, comm: MPI.Comm) -> None:
        """Start.

        Args:
            comm: Any communicator of this rank.

        Raises:
            KnetError: If MPI may not be called by two threads at once.
        """
        if MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise KnetError(
                "mpi_progress: expected an MPI that many threads may call "
                "(MPI_THREAD_MULTIPLE), got one that only one may: choose off"
            )
        self._comm = comm
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        # MPI must not be finalized under it.
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the thread; more calls do nothing."""
        atexit.unregister(self.stop)
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_INTERVAL_S):
            try:
                self._comm.Iprobe(tag=_TAG)
            except MPI.Exception:
                return  # whoever waits for a message gets the same error

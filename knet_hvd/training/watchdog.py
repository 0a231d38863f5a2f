"""A watchdog: a job whose ranks wait for a rank that hangs must not wait for ever.

Horovod and MPI see a process that has ended, but not one that is stopped, nor a network
that swallows packets: the others stay inside a collective that no exception leaves.
"""

import threading
from collections.abc import Callable

from knet_hvd.argument_checks import check_positive
from knet_hvd.deadline import LONGEST_LOOK_S, Deadline


class Watchdog:
    """Call a function, from a thread, when there was no progress for too long."""

    def __init__(self, timeout_s: float, expire: Callable[[str], None]) -> None:
        """Watch nothing yet; ``with`` begins.

        Args:
            timeout_s: The longest time between two calls of ``progress``, counted as
                ``Deadline`` does.
            expire: Called once with what to tell the user; it should end the process.

        Raises:
            ValueError: If the time is not positive.
        """
        check_positive("timeout_s", timeout_s)
        self._timeout_s = timeout_s
        self._expire = expire
        self._num_calls = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="knet_hvd.watchdog", daemon=True)

    def progress(self) -> None:
        """Start the time again."""
        # Only counted: the thread alone touches the deadline.
        self._num_calls += 1

    def _watch(self) -> None:
        deadline = Deadline(self._timeout_s)
        num_seen = self._num_calls
        while not deadline.has_passed():
            if self._over.wait(min(self._timeout_s, LONGEST_LOOK_S / 2)):
                return
            if num_seen != self._num_calls:
                num_seen = self._num_calls
                deadline.restart()
        self._expire(
            f"no progress for {self._timeout_s:g} s: another rank hangs, its network "
            "is cut, or a step takes longer than --timeout-s allows"
        )

    def __enter__(self) -> "Watchdog":
        """Begin to watch."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

"""A watchdog: a job whose ranks wait for a rank that hangs must not wait for ever.

Horovod and MPI see a process that has ended, but not one that is stopped, nor a network
that swallows packets: the others stay inside a collective that no exception leaves.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType


class Watchdog:
    """Call a function, from a thread, when there was no progress for too long."""

    def __init__(self, timeout_s: float, expire: Callable[[str], None]) -> None:
        """Watch nothing yet; ``with`` begins.

        Args:
            timeout_s: The longest time between two calls of ``progress``.
            expire: Called once with what to tell the user; it should end the process.

        Raises:
            ValueError: If the time is not positive.
        """
        if not timeout_s > 0:
            raise ValueError(f"timeout_s: expected > 0, got {timeout_s}")
        self._timeout_s = timeout_s
        self._expire = expire
        self._latest = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="knet_hvd.watchdog", daemon=True)

    def progress(self) -> None:
        """Begin the time anew."""
        self._latest = time.monotonic()

    def _watch(self) -> None:
        while True:
            left_s = self._latest + self._timeout_s - time.monotonic()
            if left_s <= 0:
                break
            if self._over.wait(left_s):
                return
        self._expire(
            f"no progress for {self._timeout_s:g} s: another rank hangs, its network "
            "is cut, or a step takes longer than --timeout-s allows"
        )

    def __enter__(self) -> "Watchdog":
        """Begin to watch."""
        self.progress()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the thread."""
        self._over.set()
        self._thread.join()

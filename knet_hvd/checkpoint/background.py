"""Work in a thread beside training."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any


class BackgroundTask:
    """Do one thing at a time in a thread of its own.

    Writing, hashing and fsync release Python's global lock, so training continues.
    """

    def __init__(self) -> None:
        """Start no thread yet."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._future: Future[Any] | None = None

    def start(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function in the thread; the one before it has ended."""
        self._future = self._threads.submit(function, *arguments)

    @property
    def is_busy(self) -> bool:
        """Whether the latest call is still running."""
        return self._future is not None and not self._future.done()

    @property
    def error(self) -> str:
        """What the latest call raised, as text; empty if it ended well, or continues."""
        if self._future is None or not self._future.done():
            return ""
        error = self._future.exception()
        if error is None:
            return ""
        text = error.strerror if isinstance(error, OSError) else str(error)
        return text or type(error).__name__

    def wait(self, limit_s: float) -> None:
        """Wait until the latest call has ended, well or not, or so long."""
        if self._future is not None:
            wait([self._future], limit_s)

    def forget(self) -> None:
        """Forget the latest call, which has ended, and its error."""
        self._future = None

    @property
    def result(self) -> Any:
        """What the latest call returned; None if there was none.

        Raises:
            Exception: Whatever it raised.
        """
        return None if self._future is None else self._future.result()

    def close(self) -> None:
        """Wait until all has ended, and end the thread."""
        self._threads.shutdown()

"""Time limits that do not count time in which this process itself did not run."""

import subprocess
import time
from collections.abc import Callable, Sequence

LONGEST_LOOK_S = 0.5
"""The most that counts between two looks at a deadline."""


class Deadline:
    """Limit the time spent waiting, as far as this process ran while it waited.

    A whole job may be suspended for longer than any of its limits: by ``scontrol
    suspend``, by gang scheduling, by a frozen control group or a paused virtual machine.
    The rank that wakes first would find its limit passed before the others, which were
    suspended as well, had a chance to answer. So the time between two calls of
    ``has_passed`` counts as at most half a second: whoever waits has to look more often.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the time.

        Args:
            limit_s: Seconds.
            clock: Returns seconds since any moment.
        """
        self._limit_s = limit_s
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Start the time again."""
        self._spent_s = 0.0
        self._latest_s = self._clock()

    def has_passed(self) -> bool:
        """Return whether the limit has passed; to be called at least twice a second."""
        now_s = self._clock()
        self._spent_s += min(now_s - self._latest_s, LONGEST_LOOK_S)
        self._latest_s = now_s
        return self._spent_s > self._limit_s


def run_within(command: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
    """Run a program without input to its end, and capture what it writes.

    Args:
        command: Its words; no shell sees them.
        limit_s: Seconds, counted as ``Deadline`` does.

    Raises:
        OSError: If it cannot be started.
        subprocess.TimeoutExpired: If it takes longer; it is killed.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = Deadline(limit_s)
        while True:
            try:
                out, err = process.communicate(timeout=LONGEST_LOOK_S / 2)
                return subprocess.CompletedProcess(command, process.returncode, out, err)
            except subprocess.TimeoutExpired:
                if deadline.has_passed():
                    process.kill()
                    raise subprocess.TimeoutExpired(command, limit_s) from None
            except BaseException:
                process.kill()
                raise

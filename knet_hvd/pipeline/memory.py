"""The peak memory of this process."""

import contextlib
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


class MemoryMeter:
    """Measure how far resident memory grows from the moment this is made.

    What the process held before, such as the libraries, does not count.
    """

    def __init__(self) -> None:
        """Begin at what is resident now."""
        self._start_bytes = _status_bytes("VmRSS")

    def restart_peak(self) -> None:
        """Forget earlier peaks, where the kernel permits it."""
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK)

    @property
    def peak_bytes(self) -> int:
        """Return the growth at the highest point, in bytes; 0 where there is no /proc.

        Before `restart_peak` that is the highest point of the process's whole life.
        """
        return max(0, _status_bytes("VmHWM") - self._start_bytes)


def _status_bytes(name: str) -> int:
    """Return a number of the process's status, in bytes."""
    if not _STATUS.exists():
        return 0
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0

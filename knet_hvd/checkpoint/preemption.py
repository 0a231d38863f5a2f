"""Signals that ask a job to stop: a time limit comes near, or others need the place."""

import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

STOPPED_EXIT_CODE = 75
"""Exit code of a job that has saved its state after a signal: EX_TEMPFAIL, "try again
later", of sysexits.h."""


class StopSignals:
    """Remember signals instead of ending the process.

    Attributes:
        received: Name of the first that came; empty before.
    """

    def __init__(
        self, signals: Sequence[signal.Signals] = (signal.SIGUSR1, signal.SIGTERM)
    ) -> None:
        """Catch nothing yet.

        Args:
            signals: Which ones. SIGUSR1 is Slurm's ``--signal`` by custom; SIGTERM is
                what ``scancel`` and a shutdown send.
        """
        self.received = ""
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number).name

    def __enter__(self) -> "StopSignals":
        """Catch the signals; in the main thread only."""
        for each in self._signals:
            self._before[each] = signal.signal(each, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        """Let them do what they did before."""
        for each, handler in self._before.items():
            signal.signal(each, handler)

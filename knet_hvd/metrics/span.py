"""The steps since the last report: what every rate and mean of a report divides by."""

import time
from collections.abc import Callable


class StepSpan:
    """Count steps, samples and time, so that a rate covers just the steps it is made of.

    An epoch need not have a multiple of the steps between two reports, and an evaluation
    takes time in which nothing is trained: after it, the span starts again.

    Attributes:
        steps: Steps since the start.
        samples: Their samples.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """Start now.

        Args:
            clock: Returns the time in seconds.
        """
        self._clock = clock
        self.restart()

    def restart(self) -> None:
        """Start again, after a report or after something that was no training."""
        self.steps = self.samples = 0
        self._start_s = self._clock()

    def add_step(self, num_samples: int) -> None:
        """Count a step that has ended.

        Raises:
            ValueError: If the number of samples is negative.
        """
        if num_samples < 0:
            raise ValueError(f"num_samples: expected 0 or more, got {num_samples}")
        self.steps += 1
        self.samples += num_samples

    @property
    def elapsed_s(self) -> float:
        """Return the time since the start, in seconds, above 0."""
        return max(self._clock() - self._start_s, 1e-9)

    @property
    def samples_per_s(self) -> float:
        """Return the samples per second since the start."""
        return self.samples / self.elapsed_s

"""What training takes of time, memory and network, with evaluation left out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from knet_hvd.devices.measuring import finish
from knet_hvd.training.loop.task import TrainingTask


class TrainingMeter:
    """Add up over all spans of training.

    Attributes:
        elapsed_s: Their time.
        counted: What ``TrainingTask.counters`` grew by.
        peak_bytes: Memory at the highest point, evaluations between the spans included; see
            ``MemoryMeter``.
    """

    def __init__(self, task: TrainingTask) -> None:
        """Start with nothing."""
        self.elapsed_s = 0.0
        self.counted = dict.fromkeys(task.counters(), 0.0)
        self.peak_bytes = 0
        self._task = task
        task.memory.restart_peak()

    @contextmanager
    def training(self) -> Iterator[None]:
        """Count what happens within."""
        finish(self._task.device)
        start_s = time.perf_counter()
        before = self._task.counters()
        yield
        finish(self._task.device)
        self.elapsed_s += time.perf_counter() - start_s
        for name, value in self._task.counters().items():
            self.counted[name] += value - before[name]
        self.peak_bytes = self._task.memory.peak_bytes

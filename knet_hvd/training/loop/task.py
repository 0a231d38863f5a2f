"""What a job trains: everything that the training loop asks of it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from knet_hvd.flat_config import Scalar
from knet_hvd.metrics import MetricLogger, StepSpan
from knet_hvd.metrics.process_memory import MemoryMeter
from knet_hvd.training.batches import BatchSource
from knet_hvd.training.state.interfaces import JobState


@dataclass(frozen=True, kw_only=True, slots=True)
class Results:
    """What the training loop knows at the end of a run.

    Attributes:
        num_steps: Steps made, with those that a checkpoint held.
        resumed_step: Steps that a checkpoint held.
        test: Loss and metrics of the final model on the test split.
        train_seconds: Time of training, evaluation not included.
        counted: What ``TrainingTask.counters`` grew by in that time.
        peak_memory_bytes: Growth of resident memory at the highest point of training.
    """

    num_steps: int
    resumed_step: int
    test: Mapping[str, float]
    train_seconds: float
    counted: Mapping[str, float]
    peak_memory_bytes: int


class Curves(ABC):
    """What a job adds to the curves that both jobs have in TensorBoard.

    Attributes:
        result_tags: Curves by which to compare runs, besides loss and metrics on the test split.
    """

    result_tags: tuple[str, ...]

    @abstractmethod
    def open(self, first_step: int | None) -> MetricLogger:
        """Open this rank's run, and write what does not change; see ``open_logger``."""

    @abstractmethod
    def scalars(self, span: StepSpan) -> dict[str, float]:
        """Return what the steps since the last report showed, by tag."""

    @abstractmethod
    def identity(self) -> dict[str, Scalar]:
        """Return choices and sizes that tell runs apart, whether default or not."""

    @abstractmethod
    def restart(self) -> None:
        """Start to measure again, after a report or an evaluation."""

    @abstractmethod
    def before_step(self, step: int) -> None:
        """Prepare what ``after_step`` draws."""

    @abstractmethod
    def after_step(self, step: int, logger: MetricLogger) -> None:
        """Draw what is more than a number."""


class TrainingTask(ABC):
    """What a job trains on this rank.

    ``Trainer`` has one, and makes the run of it.

    Attributes:
        state: Is saved and restored; holds the model, its optimizer and its moving average.
        source: The batches.
        curves: What this rank shows in TensorBoard.
        memory: Has measured since before anything was built.
        rank: This process.
        device: What this rank computes on.
        reports: Whether this rank knows the accuracy, and shows it with the progress bar.
    """

    state: JobState
    source: BatchSource
    curves: Curves
    memory: MemoryMeter
    rank: int
    device: torch.device
    reports: bool

    def running(self) -> AbstractContextManager[None]:
        """Return what encloses the run, such as connections that have to be left."""
        return nullcontext()

    @abstractmethod
    def step(self, step: int, inputs: Tensor | None, targets: Tensor) -> None:
        """Go forward and backward, and update.

        Args:
            step: The number of the step.
            inputs: [n, ...]; None where the source has none.
            targets: [n, ...].
        """

    @abstractmethod
    def drain(self) -> None:
        """Complete what is under way; called after an epoch's last step, and after the run's."""

    @property
    @abstractmethod
    def loss(self) -> float | None:
        """Return a recent loss of this rank; None if it does not know any."""

    @abstractmethod
    def before_evaluation(self) -> None:
        """Make sure that all ranks evaluate the same network."""

    @abstractmethod
    def predictions(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Go forward with this rank's share of a split, train or test; every rank has to.

        Yields:
            Outputs fp32 [n, ...] and targets [n, ...]; nothing where there are no outputs.
        """

    @abstractmethod
    def total(self, values: Tensor) -> Tensor:
        """Return the sums over all ranks that have outputs, of float64 [k]; 0 on others."""

    def counters(self) -> dict[str, float]:
        """Return what grows as the run continues, such as bytes sent."""
        return {}

    @abstractmethod
    def summary(self, results: Results) -> dict[str, Any]:
        """Return the summary of the run, the same on every rank; every rank has to call."""

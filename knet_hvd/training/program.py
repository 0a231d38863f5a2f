"""What runs a job: its exit code, and why it ends."""

import time
import traceback
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from knet_hvd.checkpoint import STOPPED_EXIT_CODE, StopSignals
from knet_hvd.errors import KnetError, PreemptionError
from knet_hvd.files import check_writable, write_json_atomic
from knet_hvd.launcher import end_launcher_later
from knet_hvd.training.cli import GRACE_S, job_name, report, say
from knet_hvd.training.config import JobConfig
from knet_hvd.training.torch_compiler import import_compiler_late

FAILED_EXIT_CODE = 1
Config = TypeVar("Config", bound=JobConfig)


class Job(ABC, Generic[Config]):
    """A program on all ranks.

    Attributes:
        config: The same on every rank.
        rank: This process; 0 until all ranks have joined.
        saves_state: Whether a signal makes the job save its state; otherwise a signal ends
            it as it ends any program.
    """

    def __init__(self, config: Config) -> None:
        """Keep the configuration; ``run`` joins the other ranks."""
        self.config = config
        self.rank = 0
        self.saves_state = config.checkpoint_dir is not None

    @abstractmethod
    def run(self, signals: StopSignals) -> None:
        """Train and report."""

    @abstractmethod
    def leave(self, message: str) -> None:
        """End this rank after an error, and the other ranks if they continue without it.

        Args:
            message: What went wrong.
        """

    def check_summary(self) -> None:
        """Check on rank 0 that the results can be written, before hours are spent on them."""
        if self.config.summary is not None and self.rank == 0:
            check_writable(self.config.summary)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Write the results, if a file is named, and say where they are."""
        if self.config.summary is not None:
            write_json_atomic(self.config.summary, summary)
            report(f"summary: {self.config.summary}")


def figures_text(summary: dict[str, Any]) -> str:
    """Return what the model reaches on training and test data, in words.

    Args:
        summary: With ``train_accuracy``, ``test_accuracy``, ``test_loss`` and others.
    """
    names = [name.partition("_") for name in summary if name.startswith(("train_", "test_"))]
    shown = [
        f"{split} {metric.replace('_', ' ')} {summary[f'{split}_{metric}']:.4f}"
        for split, _, metric in names
        if (split, metric) not in (("train", "loss"), ("train", "seconds"))
    ]
    return ", ".join(shown)


def run_job(job: Job[Any]) -> int:
    """Run a job on this rank; print why it ends, and return the exit code.

    Every error ends all ranks, also one that nobody expected: a rank that left with a
    traceback alone would wait in MPI for the others, and they for it.
    """
    import_compiler_late()
    with StopSignals() if job.saves_state else StopSignals(()) as signals:
        try:
            job.run(signals)
            return 0
        except PreemptionError as stop:
            if job.rank == 0:
                say(f"{job_name()}: {stop}")
            time.sleep(GRACE_S)
            return STOPPED_EXIT_CODE
        except BaseException as error:
            message = _message(error)
            say(reason(job.rank, message))
            if not isinstance(error, KnetError | ValueError):
                say("".join(traceback.format_exception(error)).rstrip())
            end_launcher_later()
            # While the error is at hand, so are the frames it passed through: MPI may still
            # write what arrives into the buffers that they hold.
            job.leave(message)
    return FAILED_EXIT_CODE


def _message(error: BaseException) -> str:
    """Return what went wrong; where nobody expected it, with the kind of error."""
    if isinstance(error, KnetError | ValueError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def reason(rank: int, message: str) -> str:
    """Return the line that tells why a rank stops."""
    own = f"rank {rank}: "
    return f"{job_name()}: {own}{message.removeprefix(own)}"

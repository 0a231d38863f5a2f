"""What runs a job: its exit code, and why it ends."""

import time
import traceback
from typing import Protocol

from knet_hvd.checkpoint import STOPPED_EXIT_CODE, StopSignals
from knet_hvd.errors import KnetError, PreemptionError
from knet_hvd.launcher import end_launcher_later
from knet_hvd.training.cli import GRACE_S, job_name, say

FAILED_EXIT_CODE = 1


class Job(Protocol):
    """A program on all ranks.

    Attributes:
        rank: This process, as far as it is known.
        saves_state: Whether a signal makes it save its state; otherwise a signal ends the
            job as it ends any program.
    """

    rank: int
    saves_state: bool

    def run(self, signals: StopSignals) -> None:
        """Train and report."""

    def leave(self) -> None:
        """End this rank after an error, and the other ranks if they go on without it."""


def run_job(job: Job) -> int:
    """Run a job on this rank; print why it ends, and return the exit code.

    Every error ends all ranks, also one that nobody expected: a rank that left with a
    traceback alone would wait in MPI for the others, and they for it.
    """
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
            _tell(job.rank, error)
            end_launcher_later()
            # While the error is at hand, so are the frames it passed through: MPI may still
            # write what arrives into the buffers that they hold.
            job.leave()
    return FAILED_EXIT_CODE


def _tell(rank: int, error: BaseException) -> None:
    """Say why this rank stops, with a traceback if nobody expected the error."""
    if isinstance(error, KnetError | ValueError):
        say(reason(rank, str(error)))
        return
    say(reason(rank, f"{type(error).__name__}: {error}"))
    say("".join(traceback.format_exception(error)).rstrip())


def reason(rank: int, message: str) -> str:
    """Return the line that tells why a rank stops."""
    own = f"rank {rank}: "
    return f"{job_name()}: {own}{message.removeprefix(own)}"

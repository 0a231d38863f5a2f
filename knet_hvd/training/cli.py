"""Command lines of the jobs: read, and refused, before torch, MPI and Horovod are imported."""

import contextlib
import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from knet_hvd.launcher import ALLOW_ROOT, LaunchedRank, root_is_refused

GRACE_S = 2.0
"""Time for all ranks to say why they stop: the launcher ends them when the first has ended."""
WRONG_FLAG_EXIT_CODE = 2


def say(text: str) -> None:
    """Write a line to the standard error stream, which launchers pass on at once."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def report(text: str) -> None:
    """Write a line of results to the standard output stream."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def job_name() -> str:
    """Return the name of the program that runs, such as ``train_pipeline``."""
    return Path(sys.argv[0]).stem


@contextlib.contextmanager
def wrong_flags_refused() -> Iterator[None]:
    """Read flags within: a wrong one ends the process with code 2, and is told once.

    Rank 0 says what is wrong; other ranks only if they are still there after ``GRACE_S``, as
    when theirs alone is wrong.
    """
    launched = LaunchedRank.of_environment()
    messages = io.StringIO()
    try:
        with _without_colors(launched), contextlib.redirect_stderr(messages):
            yield
        return
    except (SystemExit, ValueError, ImportError) as error:
        code = error.code if isinstance(error, SystemExit) else WRONG_FLAG_EXIT_CODE
        if isinstance(error, ImportError):
            messages.write(f"{job_name()}: {error}: pip install 'knet_hvd[jobs]'")
        elif isinstance(error, ValueError):
            messages.write(f"{job_name()}: {error}")
    if not code:  # --help
        sys.exit(0)
    if launched is not None and launched.rank:
        time.sleep(GRACE_S)
    say(messages.getvalue().rstrip("\n"))
    sys.stdout.flush()
    # An orderly exit would wait for other ranks if MPI has been imported.
    os._exit(WRONG_FLAG_EXIT_CODE)


@contextlib.contextmanager
def _without_colors(launched: LaunchedRank | None) -> Iterator[None]:
    """Keep colors out of logs: launchers give ranks a terminal of their own."""
    plain = launched is not None or "NO_COLOR" in os.environ or not sys.stderr.isatty()
    before = os.environ.get("TERM")
    if plain:
        os.environ["TERM"] = "dumb"
    try:
        yield
    finally:
        if plain:
            os.environ.pop("TERM")
        if plain and before is not None:
            os.environ["TERM"] = before


def say_start(what: str) -> None:
    """Say on rank 0 what begins, since imports and the first step take seconds.

    Args:
        what: What is trained on which data.
    """
    launched = LaunchedRank.of_environment() or LaunchedRank(0, 1, 1)
    if launched.rank == 0:
        say(f"{job_name()}: {launched.describe()}; loading {what}")


def warn_if_alone(num_ranks: int, what_is_missing: str) -> None:
    """Warn when a job that is meant for several ranks runs on one.

    Args:
        num_ranks: Ranks that MPI or Horovod see.
        what_is_missing: What one rank alone cannot show.
    """
    if num_ranks > 1:
        return
    launched = LaunchedRank.of_environment()
    command = f"mpirun -np 2 python {' '.join(sys.argv)}"
    if root_is_refused():
        command = f"{ALLOW_ROOT}; {command}"
    expected = 1 if launched is None else launched.size
    if launched is None:
        expected = int(os.environ.get("SLURM_NTASKS", "1"))
    if expected > 1:
        say(
            f"{job_name()}: warning: {expected} ranks were asked for, but each runs alone: the "
            f"launcher belongs to another MPI. Start with `{command}`, or `srun --mpi=pmix`"
        )
    elif launched is None:
        say(f"{job_name()}: warning: one rank alone, {what_is_missing}. Start with `{command}`")

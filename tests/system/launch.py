"""Run jobs on several ranks as a user does, with a time limit that leaves no rank."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
JOB = [sys.executable, str(ROOT / "jobs" / "train_data_parallel.py")]
LIMIT_S = 100
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
"""Ranks of mpirun have a terminal, and tyro colors what it writes there."""


@dataclass(frozen=True)
class Result:
    """What a job left behind; ``ended`` is the time of its end, as ``time.time()``."""

    code: int
    out: str
    err: str
    ended: float

    @property
    def text(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def mpirun(*commands: list[str]) -> list[str]:
    """Return a command line that runs each command on a rank of its own."""
    line = [str(BIN / "mpirun"), "--oversubscribe", "--mca", "mpi_yield_when_idle", "1"]
    for command in commands:
        line += ["-np", "1", *command, ":"]
    return line[:-1]


def horovodrun(command: list[str], num_ranks: int = 2) -> list[str]:
    hosts = ["-np", str(num_ranks), "-H", f"localhost:{num_ranks}"]
    return [str(BIN / "horovodrun"), "--gloo", *hosts, *command]


def _start(line: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        line,
        env={
            **os.environ,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "NO_COLOR": "1",
            "COLUMNS": "400",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextmanager
def started(line: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Start a command line; whatever is left of it in the end is killed."""
    process = _start(line)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGTERM)  # the launcher ends its ranks
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def run(line: list[str], **environment: str) -> Result:
    """Run a command line; it and all it started end after ``LIMIT_S`` seconds."""
    process = _start(line, **environment)
    try:
        out, err = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)  # the launcher ends its ranks
        try:
            out, err = process.communicate(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
        raise AssertionError(f"not over after {LIMIT_S} s:\n{out}\n{err}") from None
    ended = time.time()
    out, err = (_COLOR.sub("", text) for text in (out, err))
    return Result(process.returncode, out, err, ended)

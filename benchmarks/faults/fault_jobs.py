"""The jobs of the fault campaign: their command lines, and how they are run and ended.

What a job says goes to a file, as a pipe stays open as long as any daemon of mpirun on
a host that was cut off.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks import slow_network
from benchmarks.faults.fault_injection import processes
from knet_hvd.checkpoint import CheckpointStore

ROOT = Path(__file__).parents[2]
LIMIT_S = 60.0
TIMEOUT_FLAGS = ["--timeout-s", "20"]
SHARED = ["--epochs", "80", "--checkpoint-every", "20", *TIMEOUT_FLAGS]
PIPELINE = ["train_pipeline.py", *SHARED, "--deterministic", "--width", "0.5"]
SYNTHESIZER = ["--decoupler.hidden-units", "8", "--decoupler.kernel-size", "3"]
JOBS: dict[str, tuple[int, list[str]]] = {
    "data_parallel": (
        2,
        [
            *("train_data_parallel.py", *SHARED, "--model", "mlp"),
            *("--ternary.error-feedback", "--learning-rate", "0.02"),
        ],
    ),
    "pipeline": (2, [*PIPELINE, "--decoupler", "synthetic", *SYNTHESIZER]),
    "hybrid": (4, [*PIPELINE, "--decoupler", "local", "--replicas", "2", "--batch-size", "32"]),
}
"""Ranks, and the script with its flags."""


def command_of(job: str, folder: Path, on_hosts: bool = False) -> list[str]:
    """Return the command line of a job whose files are all in a folder."""
    ranks, (script, *flags) = JOBS[job]
    program = [sys.executable, str(ROOT / "jobs" / script), *flags]
    program += ["--checkpoint-dir", str(folder / "disk" / "checkpoints")]
    program += ["--summary", str(folder / "summary.json")]
    program += ["--logdir", str(folder / "logs")]
    if on_hosts:
        exported = ["-x", "OMP_NUM_THREADS", "-x", "PYTHONPATH"]
        return [str(slow_network.HOSTS), "mpirun", *exported, *program]
    launcher = ["mpirun", "--oversubscribe", "-np", str(ranks)]
    launcher += ["--mca", "mpi_yield_when_idle", "1"]
    if os.getuid() == 0:
        launcher.append("--allow-run-as-root")
    return [*launcher, *program]


def start(line: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
    """Start a command line in a session of its own; what it says goes to a file."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with output.open("wb") as file:
        return subprocess.Popen(
            line,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process: subprocess.Popen[bytes], output: Path, limit_s: float) -> tuple[int, str]:
    """Return the exit code and all output.

    Raises:
        AssertionError: If it is not over in time; it is killed then.
    """
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        end_session(process.pid)
        process.wait()
        text = output.read_text(errors="replace")
        raise AssertionError(f"not over after {limit_s:g} s: {text[-2000:]}") from None
    return process.returncode, output.read_text(errors="replace")


def run(line: Sequence[str], output: Path) -> tuple[int, str]:
    """Run a command line to its end; return its exit code and output."""
    return finish(start(line, output), output, 10 * LIMIT_S)


def session_pids(session: int) -> list[int]:
    """Return what runs in a session: mpirun, and its daemons on all hosts."""
    return [pid for pid, _, its_session in processes() if its_session == session]


def end_session(session: int) -> None:
    """Kill what is left of a session."""
    for pid in session_pids(session):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def wait_for_checkpoint(store: CheckpointStore, job: subprocess.Popen[bytes], output: Path) -> None:
    """Wait until a checkpoint is on the disk."""
    while not store.steps():
        if job.poll() is not None:
            text = output.read_text(errors="replace")
            raise RuntimeError(f"the job ended on its own: {text[-2000:]}")
        time.sleep(0.02)


def summary_of(folder: Path) -> dict[str, Any]:
    """Return a run's summary, with one digest for all stages of a pipeline."""
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    if "stages" in summary:
        digests = [stage["parameters_sha256"] for stage in summary["stages"]]
        summary["parameters_sha256"] = " ".join(digests)
    return summary

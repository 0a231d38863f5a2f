"""Run training jobs one after the other, and sum up what they reached."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

JOBS = Path(__file__).parents[2] / "jobs"


def run_job(job: str, ranks: int, arguments: Sequence[str], summary: Path) -> dict[str, Any]:
    """Run a job as ``run_script`` does.

    Args:
        job: File name in jobs/.
        ranks: Processes.
        arguments: Of the job.
        summary: File of the results.
    """
    return run_script(JOBS / job, ranks, arguments, summary)


def run_script(script: Path, ranks: int, arguments: Sequence[str], summary: Path) -> dict[str, Any]:
    """Run a script under mpirun unless its summary exists; return the summary.

    Args:
        script: Takes ``--summary`` beside its arguments, and writes JSON there.
        ranks: Processes.
        arguments: Of the script.
        summary: File of the results; its name is shown as progress.
    """
    if not summary.exists():
        print(f"running {summary.stem}", file=sys.stderr, flush=True)
        launcher = ["mpirun", "--oversubscribe", "-np", str(ranks)]
        launcher += ["--mca", "mpi_yield_when_idle", "1"]
        if os.getuid() == 0:
            launcher.append("--allow-run-as-root")
        command = [*launcher, sys.executable, str(script), *arguments]
        full = [*command, "--summary", str(summary)]
        subprocess.run(full, check=True, stdout=sys.stderr)
    result: dict[str, Any] = json.loads(summary.read_text())
    return result


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return accuracies, their mean and standard deviation in percent."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "accuracies": [round(100 * value, 2) for value in values],
        "mean": round(100 * statistics.mean(values), 3),
        "stdev": round(100 * deviation, 3),
    }


def gap_points(values: Sequence[float], reference: Sequence[float]) -> float:
    """Return how far the mean is above the reference's, in points."""
    return round(100 * (statistics.mean(values) - statistics.mean(reference)), 3)

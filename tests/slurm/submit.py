"""Submit the templates of slurm/ as a user does, and wait for what comes of them."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LIMIT_S = 400
"""Of a job; it takes seconds on a machine that does nothing else."""

_ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL"}


class Slurm:
    """Talk to a cluster; what jobs print and leave is in a folder of the test's own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.path = f"{Path(sys.executable).parent}:{environment['PATH']}"
        self._environment = {
            **environment,
            "PATH": self.path,
            "KNET_VENV": "",
            "KNET_RUNS": str(self.runs),
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "PRTE_ALLOW_RUN_AS_ROOT": "1",
            "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1",
            # Open MPI names a rank's shared memory by host name and local rank, and all nodes
            # here have one host name: two ranks would take the same file, and crash.
            "OMPI_MCA_btl": "self,tcp",
            "USER": os.environ.get("USER", "root"),
            "NO_COLOR": "1",
        }

    def run(self, *command: str, **environment: str) -> str:
        """Return the output of a command that has to succeed."""
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def submit(
        self, template: str, *flags: str, options: tuple[str, ...] = (), **environment: str
    ) -> str:
        """Submit a template with the flags of its job; return the job's number.

        ``options`` are Slurm's own.
        """
        out, err = self.folder / "%x-%a.out", self.folder / "%x-%a.err"
        return self.run(
            "sbatch",
            "--parsable",
            f"--output={out}",
            f"--error={err}",
            *options,
            f"slurm/{template}.sbatch",
            *flags,
            **environment,
        ).strip()

    def text(self) -> str:
        """Return all that jobs have printed so far."""
        files = sorted(self.folder.glob("*.out")) + sorted(self.folder.glob("*.err"))
        return "\n".join(f"{f.name}:\n{f.read_text(errors='replace')}" for f in files)

    def errors(self) -> list[str]:
        """Return the lines that jobs have written to their standard error."""
        files = sorted(self.folder.glob("*.err"))
        return [line for file in files for line in file.read_text().splitlines()]

    def states(self, job: str) -> set[str]:
        """Return the states of a job's tasks and components."""
        return set(re.findall(r"JobState=(\w+)", self.run("scontrol", "show", "job", job)))

    def wait(self, job: str) -> set[str]:
        """Return the states that a job has ended with."""
        self.until(lambda: self.states(job) <= _ENDED, f"job {job} to end")
        return self.states(job)

    def until(self, ready: Callable[[], Any], what: str) -> None:
        """Wait until something holds, for ``LIMIT_S`` seconds at most."""
        deadline = time.monotonic() + LIMIT_S
        while not ready():
            assert time.monotonic() < deadline, f"waited for {what}:\n{self.text()}"
            time.sleep(0.5)

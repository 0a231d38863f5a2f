"""Run an elastic job on this machine, and take workers from it or give it more.

Horovod's driver gives up a host when one of its workers fails; each address of
127.0.0.0/8 counts as a host of its own here.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
JOB = ROOT / "jobs" / "train_data_parallel.py"
_PERCENT = re.compile(r"training: +(\d+)%")
_CONTINUING = re.compile(r"continuing with (\d+) workers")


class ElasticJob:
    """A launcher and its workers, which end with the ``with`` block.

    Attributes:
        process: The launcher.
        lines: What it and its workers have written so far.
    """

    def __init__(
        self, folder: Path, num_workers: int, arguments: Sequence[str], min_workers: int
    ) -> None:
        """Start the job.

        Args:
            folder: For the list of hosts.
            num_workers: In the beginning.
            arguments: Of jobs/train_data_parallel.py.
            min_workers: With fewer it waits.
        """
        self._hosts = folder / "hosts"
        self._num_hosts = 0
        self.add_hosts(num_workers)
        script = folder / "hosts.sh"
        script.write_text(f"#!/bin/sh\nexec cat '{self._hosts}'\n")
        script.chmod(0o755)
        command = [sys.executable, "-m", "knet_hvd", "elastic"]
        command += ["--min-np", str(min_workers), "-np", str(num_workers)]
        command += ["--host-discovery-script", str(script), "--"]
        command += [sys.executable, str(JOB), "--elastic", *arguments]
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            command,
            env={"HOROVOD_GLOO_TIMEOUT_SECONDS": "5", **os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())

    @property
    def text(self) -> str:
        """All that was written so far."""
        return "\n".join(self.lines)

    @property
    def percent(self) -> int:
        """How far the latest line of progress says that the run is."""
        found = _PERCENT.findall(self.text)
        return int(found[-1]) if found else 0

    def add_hosts(self, number: int) -> None:
        """Let the job have that many hosts more, of one worker each."""
        self._num_hosts += number
        hosts = [f"127.0.0.{1 + i}:1" for i in range(self._num_hosts)]
        new = self._hosts.with_suffix(".new")
        new.write_text("\n".join(hosts) + "\n")
        new.replace(self._hosts)

    def workers(self) -> list[psutil.Process]:
        """Return the workers, the oldest first."""
        found = psutil.Process(self.process.pid).children()
        found = [each for each in found if str(JOB) in each.cmdline()]
        return sorted(found, key=lambda each: each.create_time())

    @property
    def workers_left(self) -> int:
        """With how many it continued the last time; 0 if all have been there always.

        Gloo may end a second worker with the first: a message of a collective that
        one rank has left meets another one, and gloo's thread aborts the process.
        """
        found = _CONTINUING.findall(self.text)
        return int(found[-1]) if found else 0

    def wait_until(self, condition: Callable[[], object], limit_s: float) -> None:
        """Wait for something while the job runs.

        Raises:
            RuntimeError: If the job ends before, or it takes longer than that.
        """
        deadline = time.monotonic() + limit_s
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"it did not come to that:\n{self.text}")
            time.sleep(0.05)

    def wait(self, limit_s: float) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(limit_s)
        self._reader.join(10)
        return code

    def __enter__(self) -> "ElasticJob":
        """Return the job."""
        return self

    def __exit__(self, *_: object) -> None:
        """End what is left of it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.process.wait()

"""Start the ranks of torch.distributed one by one, to see how each of them ends.

``torchrun`` would end all ranks as soon as one has failed.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.system.launch import ROOT

LIMIT_S = 90


@dataclass(frozen=True)
class Ended:
    """One rank after its end; ``code`` is negative for a signal."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def run_ranks(num_ranks: int, script: Path, folder: Path, *arguments: str) -> list[Ended]:
    """Run a script on each rank; they meet at a file in ``folder``, over loopback."""
    start = time.monotonic()
    processes = []
    for rank in range(num_ranks):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
            "KNET_TEST_STORE": f"file://{folder}/store",
        }
        command = [sys.executable, str(script), *arguments]
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        return [_ended(process, start) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.communicate()


def _ended(process: subprocess.Popen[str], start: float) -> Ended:
    out, err = process.communicate(timeout=max(1.0, start + LIMIT_S - time.monotonic()))
    return Ended(process.returncode, out, err, time.monotonic() - start)

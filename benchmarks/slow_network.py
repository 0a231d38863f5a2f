"""Run a benchmark's worker on every host of slow_hosts.sh, and read byte counters."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HOSTS = Path(__file__).with_name("slow_hosts.sh")
COUNTER = Path("/sys/class/net/eth0/statistics/tx_bytes")
_MARK = "RESULT "


@contextmanager
def hosts(count: int, rate: str) -> Iterator[None]:
    """Have that many hosts while the context lasts; needs root."""
    subprocess.run([str(HOSTS), "up", str(count), rate], check=True)
    try:
        yield
    finally:
        subprocess.run([str(HOSTS), "down"], check=True)


def run_worker(script: str, arguments: Sequence[str], threads: int = 1) -> object:
    """Run a Python script on one rank a host; return what rank 0 reported.

    Raises:
        RuntimeError: If it failed; its output is in the message.
    """
    return _run([str(HOSTS), "mpirun"], script, arguments, threads)


def run_here(script: str, arguments: Sequence[str], ranks: int, threads: int = 1) -> object:
    """Run a Python script on ranks of this machine; return what rank 0 reported.

    Raises:
        RuntimeError: If it failed; its output is in the message.
    """
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
    launcher += ["--mca", "mpi_yield_when_idle", "1"]
    if os.getuid() == 0:
        launcher.append("--allow-run-as-root")
    return _run(launcher, script, arguments, threads)


def _run(launcher: list[str], script: str, arguments: Sequence[str], threads: int) -> object:
    command = [*launcher, "-x", f"OMP_NUM_THREADS={threads}"]
    command += ["-x", "PYTHONPATH", sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        raise RuntimeError(f"{script} failed ({done.returncode}):\n{done.stdout}")
    return json.loads(lines[-1].removeprefix(_MARK))


def meet_on_hosts() -> None:
    """Have gloo take the network between the hosts; call before it is initialized.

    It would otherwise look up the address of the machine, not of this rank's host.
    """
    os.environ["GLOO_SOCKET_IFNAME"] = "eth0"
    os.environ["MASTER_ADDR"] = "knet-h1"


def report(result: object) -> None:
    """Hand a result from rank 0 of a worker to ``run_worker``."""
    print(_MARK + json.dumps(result), flush=True)


def sent_bytes() -> int:
    """Return the bytes that this host has sent, all headers counted."""
    return int(COUNTER.read_text())

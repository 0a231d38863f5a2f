"""A host that is cut off the network, between hosts that are network namespaces."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.launch import JOB, ROOT, started

HOSTS = str(ROOT / "benchmarks" / "slow_hosts.sh")
LIMIT_S = 80
PIPELINE = [sys.executable, str(ROOT / "jobs" / "train_pipeline.py")]


@pytest.fixture
def _hosts() -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("hosts of network namespaces need root and iproute2")
    if subprocess.run([HOSTS, "up", "2", "unlimited"], check=False).returncode:
        pytest.skip("this machine permits no network namespaces")
    yield
    subprocess.run([HOSTS, "down"], check=True)


@pytest.mark.usefixtures("_hosts")
@pytest.mark.parametrize("job", [JOB, PIPELINE], ids=["data_parallel", "pipeline"])
def test_every_rank_and_launcher_ends(tmp_path: Path, job: list[str]) -> None:
    marker = tmp_path / "checkpoints"  # each rank's command line names it
    flags = ["--epochs", "1000", "--timeout-s", "5", "--checkpoint-every", "5"]
    flags += ["--checkpoint-dir", str(marker)]
    with started([HOSTS, "mpirun", "-x", "PYTHONPATH", *job, *flags]) as process:
        while not list(marker.glob("step-*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        subprocess.run(["ip", "link", "set", "knetv2", "down"], check=True)
        out, err = process.communicate(timeout=LIMIT_S)  # all that write have ended
        assert process.returncode != 0
        # 1, 1.5 or 2 timeouts: waits for shards and step of a checkpoint have more.
        waits = r"nothing came within (5|7\.5|10) s|no progress for 5 s"
        assert re.search(waits, err), err
        assert "Traceback" not in out + err
        command_lines = [_read(path) for path in Path("/proc").glob("*/cmdline")]
        assert not any(str(marker).encode() in line for line in command_lines)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the process has ended

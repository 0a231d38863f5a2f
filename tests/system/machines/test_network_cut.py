"""A host that is cut off the network, between hosts that are network namespaces."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.launch import JOB, ROOT, run, started

HOSTS = str(ROOT / "benchmarks" / "slow_hosts.sh")
LIMIT_S = 80
PEERS = ("ddp-fp16", "ddp-powersgd")  # PyTorch's own, over gloo
PIPELINE = [sys.executable, str(ROOT / "jobs" / "train_pipeline.py")]


@pytest.fixture
def _namespaces() -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("hosts of network namespaces need root and iproute2")
    yield
    subprocess.run([HOSTS, "down"], check=True)


@pytest.fixture
def _hosts(_namespaces: None) -> None:
    if subprocess.run([HOSTS, "up", "2", "unlimited"], check=False).returncode:
        pytest.skip("this machine permits no network namespaces")


@pytest.mark.usefixtures("_hosts")
@pytest.mark.parametrize("job", [JOB, PIPELINE], ids=["data_parallel", "pipeline"])
def test_every_rank_and_launcher_ends(tmp_path: Path, job: list[str]) -> None:
    marker = tmp_path / "checkpoints"  # each rank's command line names it
    flags = ["--epochs", "1000", "--timeout-s", "10", "--checkpoint-every", "5"]
    flags += ["--checkpoint-dir", str(marker)]
    with started([HOSTS, "mpirun", "-x", "PYTHONPATH", *job, *flags]) as process:
        while not list(marker.glob("step-*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.1)
        subprocess.run(["ip", "link", "set", "knet-h2", "down"], check=True)
        out, err = process.communicate(timeout=LIMIT_S)  # all that write have ended
        assert process.returncode != 0
        # 1, 1.5 or 2 timeouts: waits for shards and step of a checkpoint have more.
        waits = r"nothing came within (10|15|20) s|no progress for 10 s"
        assert re.search(waits, err), err
        assert "Traceback" not in out + err
        command_lines = [_read(path) for path in Path("/proc").glob("*/cmdline")]
        assert not any(str(marker).encode() in line for line in command_lines)


@pytest.mark.usefixtures("_hosts")
def test_a_benchmark_between_hosts_times_every_method() -> None:
    script = str(ROOT / "benchmarks" / "exchange" / "exchange.py")
    result = run([sys.executable, script, "--network", "lenet", "--rounds", "1"])
    assert result.code == 0, result.text
    rows = json.loads(result.out[result.out.index("{") :])["exchange"]
    assert set(rows) == {"fp32", "fp16", "allgather", "alltoall", "allreduce", *PEERS}
    assert rows["allgather"]["wire_bytes"] < rows["ddp-fp16"]["wire_bytes"] / 5


@pytest.mark.usefixtures("_namespaces")
def test_nothing_but_the_hosts_is_made_or_removed() -> None:
    foreign = "h7"  # a name that somebody else may have chosen
    if foreign in _namespaces_now() or subprocess.run(["ip", "netns", "add", foreign]).returncode:
        pytest.skip("this machine permits no network namespaces")
    try:
        before = _state()
        names = Path("/etc/hosts").read_text()
        subprocess.run([HOSTS, "up", "2", "1gbit"], check=True)
        assert {"knet-h1", "knet-h2", foreign} <= _namespaces_now()
        assert Path("/etc/hosts").read_text() == names
        found = subprocess.run(
            [HOSTS, "run", "knet-h1", "getent", "hosts", "knet-h2"], capture_output=True, text=True
        )
        assert found.stdout.split() == ["10.201.77.2", "knet-h2"], found
        subprocess.run([HOSTS, "down"], check=True)
        assert _state() == before
        assert subprocess.run([HOSTS, "up", "2", "no-rate"]).returncode != 0
        assert _state() == before
    finally:
        subprocess.run(["ip", "netns", "del", foreign], check=True)


def _namespaces_now() -> set[str]:
    return {path.name for path in Path("/run/netns").glob("*")}


def _state() -> tuple[object, ...]:
    """Return what the hosts are made of."""
    interfaces = sorted(path.name for path in Path("/sys/class/net").iterdir())
    configured = sorted(Path("/etc/netns").glob("*"))
    return sorted(_namespaces_now()), interfaces, configured, Path("/etc/hosts").read_text()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # the process has ended

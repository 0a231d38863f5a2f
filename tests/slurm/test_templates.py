"""Each template on a real Slurm of two nodes, with the digits data set."""

import json
import re
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.slurm.submit import LIMIT_S, Slurm

SHORT = ["--max-steps", "30"]

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


def summary_of(slurm: Slurm, template: str, *flags: str) -> dict[str, Any]:
    """Run a template to its end, and return the summary that it leaves."""
    job = slurm.submit(template, *flags)
    assert slurm.wait(job) == {"COMPLETED"}, slurm.text()
    folder = slurm.runs / f"{template}-{job}"
    assert list(folder.glob("**/events.out.tfevents.*")), slurm.text()
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    assert summary["test_accuracy"] > 0.3  # it has learned
    return summary


def test_doctor(slurm: Slurm) -> None:
    job = slurm.submit("doctor", "--json")
    assert slurm.wait(job) == {"COMPLETED"}, slurm.text()
    (out,) = slurm.folder.glob("doctor*.out")
    report = json.loads(out.read_text())
    assert sorted(report["hosts"]) == ["n1", "n2"]
    assert len(report["links"]) == 1


def test_data_parallel(slurm: Slurm) -> None:
    summary = summary_of(slurm, "data_parallel", *SHORT, "--batch-size", "16")
    assert summary["num_ranks"] == 2
    assert summary["config"]["batch_size"] == 16


def test_pipeline(slurm: Slurm) -> None:
    summary = summary_of(slurm, "pipeline", *SHORT, "--decoupler", "delayed")
    assert summary["num_stages"] == 2
    assert summary["config"]["decoupler"] == "delayed"


def test_hybrid(slurm: Slurm) -> None:
    summary = summary_of(slurm, "hybrid", *SHORT)
    assert summary["num_stages"] == 2
    assert summary["config"]["replicas"] == 2


def test_heterogeneous(slurm: Slurm) -> None:
    summary = summary_of(slurm, "heterogeneous", *SHORT)
    assert summary["num_stages"] == 3
    assert summary["config"]["placement"] == "measured"
    assert sorted(stage["rank"] for stage in summary["stages"]) == [0, 1, 2]
    (hosts,) = slurm.runs.glob("*/hosts")
    assert sorted(hosts.read_text().splitlines()) == ["n1 slots=1", "n2 slots=2"]


def test_seeds(slurm: Slurm) -> None:
    job = slurm.submit("seeds", *SHORT)
    assert slurm.wait(job) == {"COMPLETED"}, slurm.text()
    folder = slurm.runs / f"seeds-{job}"
    files = sorted(file.name for file in folder.glob("*.json"))
    assert files == ["seed-0.json", "seed-1.json", "seed-2.json"]
    hashes = {json.loads((folder / f).read_text())["parameters_sha256"] for f in files}
    assert len(hashes) == 3
    table = folder / "table.md"
    slurm.until(table.exists, "the table")
    assert re.findall(r"^\| (\w+)", table.read_text(), re.MULTILINE) == [
        "seed",
        "0",
        "1",
        "2",
        "mean",
        "deviation",
    ]


def listening_addresses(port: int) -> set[str]:
    """Return the addresses, as /proc writes them, on which somebody listens."""
    rows = []
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        rows += [line.split() for line in Path(file).read_text().splitlines()[1:]]
    local = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {address for address, number in local if int(number, 16) == port}


def test_tensorboard_is_on_loopback_only(slurm: Slurm) -> None:
    slurm.runs.mkdir()
    job = slurm.submit("tensorboard")
    line = r"ssh -N -L (\d+):localhost:\1 -J \S+@\S+ \S+@n[12]"
    slurm.until(lambda: re.search(line, slurm.text()), "the ssh line")
    port = int(re.findall(line, slurm.text())[0])
    slurm.until(lambda: listening_addresses(port), "TensorBoard to listen")
    assert listening_addresses(port) == {"0100007F"}
    url = f"http://127.0.0.1:{port}/"
    with urllib.request.urlopen(url, timeout=60) as response:
        assert b"TensorBoard" in response.read()
    slurm.run("scancel", job)
    assert slurm.wait(job) == {"CANCELLED"}
    slurm.until(lambda: not listening_addresses(port), "TensorBoard to end")


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"KNET_VENV": "/no/venv"}, "no virtual environment in /no/venv: run"),
        ({"KNET_LAUNCHER": "rsh"}, "KNET_LAUNCHER is mpirun or srun, not 'rsh'"),
        ({"KNET_DATA": "mnist"}, "data set mnist is read from files: name"),
        ({"KNET_RUNS": "/proc/no"}, "results cannot be written to /proc/no/"),
        ({"KNET_INTERFACE": "no0"}, "node n[12]: no network interface no0: edit"),
        ({"KNET_GPUS_PER_NODE": "99"}, "99 GPUs on each node were wanted, and Slurm gave none:"),
        ({"KNET_DATA_DIR": "/no/data"}, "node n[12]: no data folder /no/data: edit"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_missing_is_said_in_one_line(
    environment: dict[str, str], message: str, slurm: Slurm
) -> None:
    job = slurm.submit("data_parallel", *SHORT, **environment)
    assert slurm.wait(job) == {"FAILED"}, slurm.text()
    (line,) = slurm.errors()
    assert re.match(f"data_parallel: {message}", line), line
    assert not list(slurm.runs.glob("*/summary.json"))


@pytest.mark.parametrize("fault", ["exit 1", "sleep 1000"], ids=["fails", "hangs"])
def test_a_launcher_that_starts_nothing_is_named(fault: str, slurm: Slurm, tmp_path: Path) -> None:
    launcher = tmp_path / "bin" / "mpirun"
    launcher.parent.mkdir()
    launcher.write_text(f"#!/bin/sh\necho no route to host\n{fault}\n")
    launcher.chmod(0o755)
    path = f"{launcher.parent}:{slurm.path}"
    job = slurm.submit("data_parallel", PATH=path, KNET_START_LIMIT_S="3")
    assert slurm.wait(job) == {"FAILED"}, slurm.text()
    (line,) = slurm.errors()
    assert line.startswith("data_parallel: mpirun d"), line
    reason = "within 3 s" if "sleep" in fault else "no route to host"
    assert reason in line


def test_a_port_in_use_is_named(slurm: Slurm) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        job = slurm.submit("tensorboard", str(port))
        assert slurm.wait(job) == {"FAILED"}, slurm.text()
    (line,) = slurm.errors()
    assert line.startswith(f"tensorboard: port {port} is in use: ")


def test_a_wrong_flag_ends_the_job(slurm: Slurm) -> None:
    job = slurm.submit("pipeline", "--no-such-flag")
    assert slurm.wait(job) == {"FAILED"}, slurm.text()
    assert "no-such-flag" in slurm.text()

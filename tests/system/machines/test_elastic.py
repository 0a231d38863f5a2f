"""An elastic job outlives its workers, and listens where it was told to."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.faults.elastic_job import ElasticJob
from tests.system.launch import BIN, JOB, LIMIT_S, ROOT, Result, mpirun, run

FLAGS = ["--model", "mlp", "--batch-size", "16", "--epochs", "40"]
FLAGS += ["--ternary.error-feedback", "--learning-rate", "0.02", "--log-every", "1000"]
DOCS = (ROOT / "docs" / "elastic.md").read_text()
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NO_COLOR", "1")


def listening(processes: list[psutil.Process]) -> set[str]:
    """Return the addresses on which these processes listen for connections."""
    return {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def test_one_worker_is_killed_and_another_one_joins(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    flags = [*FLAGS, "--summary", str(summary), "--logdir", str(tmp_path / "curves")]
    seen: set[str] = set()
    with ElasticJob(tmp_path, 4, flags, min_workers=2) as job:

        def sees(text: str) -> bool:
            """Look at the sockets as well: gloo listens for moments only."""
            try:
                job_processes = [psutil.Process(job.process.pid), *job.workers()]
                seen.update(listening(job_processes))
            except psutil.NoSuchProcess:
                pass
            return text in job.text

        job.wait_until(lambda: sees("training:"), LIMIT_S)
        workers = job.workers()
        assert len(workers) == 4
        workers[1].kill()
        job.wait_until(lambda: sees("") and job.workers_left, LIMIT_S)
        assert job.workers_left in (2, 3)  # see there
        job.add_hosts(4 - job.workers_left)
        job.wait_until(lambda: sees("continuing with 4 workers"), LIMIT_S)
        left = job.workers()
        assert job.wait(LIMIT_S) == 0, job.text
    assert set(left) - set(workers)
    assert not any(process.is_running() for process in left)
    facts: dict[str, Any] = json.loads(summary.read_text())
    assert facts["sizes"][0] == facts["sizes"][-1] == 4
    assert facts["resets"] == len(facts["sizes"]) - 1 >= 2
    assert facts["steps_lost"] <= 21 * facts["resets"]  # commit_every, and the present
    assert facts["num_ranks"] == 4
    assert facts["config"]["learning_rate"] == 0.02
    assert facts["test_accuracy"] > 0.96  # undisturbed 0.98 and more
    assert seen == {"127.0.0.1"}


def test_the_launcher_is_killed_and_leaves_nobody_behind(tmp_path: Path) -> None:
    flags = [*FLAGS, "--epochs", "100000"]
    with ElasticJob(tmp_path, 2, flags, min_workers=1) as job:
        job.wait_until(lambda: "training:" in job.text, LIMIT_S)
        workers = job.workers()
        job.process.send_signal(signal.SIGKILL)
        gone, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, job.text
        assert len(gone) == 2
    assert "the launcher has ended" in job.text


def test_mpirun_is_told_the_command_to_use() -> None:
    refused = run(mpirun([*JOB, *FLAGS, "--elastic"]))
    assert refused.code == 1, refused.text
    assert "start the job with `python -m knet_hvd elastic --min-np 2" in refused.err
    assert "Traceback" not in refused.err


def test_a_job_that_is_not_elastic_is_told_so(tmp_path: Path) -> None:
    """On another host, as far as the launcher knows: a shell stands in for ssh."""
    script, ssh = tmp_path / "hosts.sh", tmp_path / "ssh.sh"
    script.write_text("#!/bin/sh\necho 192.0.2.1:1\n")
    ssh.write_text('#!/bin/sh\necho "to $1" && shift && exec sh -c "$*"\n')
    for file in (script, ssh):
        file.chmod(0o755)
    line = [sys.executable, "-m", "knet_hvd", "elastic", "--ssh", str(ssh)]
    line += ["--host-discovery-script", str(script), "--", *JOB, *FLAGS]
    result: Result = run(line)
    assert "to 192.0.2.1" in result.out
    assert result.code == 1, result.text
    assert "give it --elastic, or start it with mpirun" in result.err
    assert "elastic: the job has failed" in result.err


def test_the_command_of_the_docs(tmp_path: Path) -> None:
    block = re.findall(r"```bash\n(.*?)```", DOCS, flags=re.DOTALL)[0]
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-ec", block],
        cwd=tmp_path,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 resets: 4 workers" in done.stdout

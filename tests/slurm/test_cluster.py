"""The cluster of the tests leaves nothing behind."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.slurm.cluster import cluster, missing, processes_of

STUBBORN = """#!/bin/sh
trap "" TERM
(trap "" TERM; while :; do sleep 1; done) &
echo started
wait
"""


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_job_that_ignores_signals_ends_with_the_cluster(tmp_path: Path) -> None:
    script, out = tmp_path / "job.sh", tmp_path / "out"
    script.write_text(STUBBORN)
    with cluster(num_nodes=1) as environment:
        command = ["sbatch", f"--output={out}", str(script)]
        subprocess.run(command, env=environment, check=True, timeout=30)
        deadline = time.monotonic() + 60
        while not (out.exists() and out.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert len(processes_of(environment)) > 3
    time.sleep(0.5)  # killed processes are reaped by their parents
    assert processes_of(environment) == []
    assert not Path(environment["SLURM_CONF"]).exists()

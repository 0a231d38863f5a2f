"""``python -m knet_hvd doctor`` as a user runs it."""

import json
import sys
from typing import Any

from tests.system.launch import Result, horovodrun, mpirun, run

DOCTOR = [sys.executable, "-m", "knet_hvd", "doctor"]
CHECKS = {
    "MPI",
    "user",
    "MPI threads",
    "leftovers",
    "Horovod",
    "one MPI",
    "torch",
    "GPU",
    "copies to GPU",
    "NCCL",
    "codec on CPU",
    "codec on GPU",
    "memory",
}
BETWEEN_RANKS = {"same versions", "equal speed", "links"}


def examine(*flags: str, num_ranks: int = 1, **environment: str) -> Result:
    command = [*DOCTOR, *flags]
    line = mpirun(*[command] * num_ranks) if num_ranks > 1 else command
    return run(line, **environment)


def by_check(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {found["check"]: found for found in report["checks"]}


def test_one_process_is_told_that_all_is_well() -> None:
    result = examine()
    assert result.code == 0, result.text
    assert "Nothing would stop a job" in result.out
    assert "Open MPI v5" in result.out
    assert "0.28.1, built with mpi" in result.out
    for name in CHECKS:
        assert f" {name} " in result.out
    assert "latency" not in result.out  # there is nobody to measure


def test_two_ranks_are_measured_and_reported_once() -> None:
    result = examine("--json", num_ranks=2)
    assert result.code == 0, result.text
    report = json.loads(result.out)
    assert set(by_check(report)) == CHECKS | BETWEEN_RANKS
    assert report["ok"]
    assert len(report["hosts"]) == len(report["compute_s"]) == 2
    assert all(seconds > 0 for seconds in report["compute_s"])
    (link,) = report["links"]
    assert (link["source"], link["target"]) == (0, 1)
    assert link["latency_s"] > 0
    assert link["bytes_per_s"] > 0


def test_a_slow_rank_is_named_and_stops_nothing() -> None:
    result = examine("--slow-rank", "1:40", num_ranks=2)
    assert result.code == 0, result.text
    assert "rank 1 computes" in result.out
    assert "rank 0 computes" not in result.out
    assert "latency us" in result.out
    assert "ms as ternary codes" in result.out


def test_the_slow_kernels_are_a_warning() -> None:
    result = examine("--json", KNET_EXT="off")
    assert result.code == 0, result.text
    found = by_check(json.loads(result.out))["codec on CPU"]
    assert found["level"] == "warning"
    assert "pip install" in found["fix"]


def test_kernels_that_this_processor_does_not_have_stop_a_job() -> None:
    result = examine("--json", KNET_CPU="no-such-kernels")
    assert result.code == 1, result.text
    report = json.loads(result.out)
    assert not report["ok"]
    assert by_check(report)["codec on CPU"]["level"] == "problem"


def test_a_broken_mpi_is_explained_not_crashed_on() -> None:
    result = examine(MPI4PY_LIBMPI="/no/libmpi.so")
    assert result.code == 1, result.text
    assert "Traceback" not in result.text
    assert "PROBLEM  MPI " in result.out
    assert "to fix: install an MPI" in result.out


def test_ranks_that_do_not_find_each_other_are_told_why() -> None:
    """As under the mpirun of another MPI: it sets variables that ours ignores."""
    result = examine(PMI_SIZE="2", PMI_RANK="0")
    assert result.code == 1, result.text
    assert "2 ranks were started, but each takes itself for the only one" in result.out


def test_under_gloo_one_rank_reports_and_says_what_is_left_out() -> None:
    result = run(horovodrun(DOCTOR))
    assert result.code == 0, result.text
    assert result.text.count("Nothing would stop a job") == 1
    assert "horovodrun started Gloo" in result.text


def test_one_rank_with_a_problem_is_named_and_fails_all() -> None:
    broken = [sys.executable, "-c", BROKEN_RANK]
    result = run(mpirun(DOCTOR, broken))
    assert result.code != 0, result.text
    assert "rank 1: does not run" in result.out
    assert result.out.count("would stop a job") == 1


BROKEN_RANK = """
import os, runpy, sys
os.environ["KNET_CPU"] = "no-such-kernels"
sys.argv = ["knet_hvd", "doctor"]
runpy.run_module("knet_hvd", run_name="__main__")
"""


def test_a_wrong_flag_is_explained() -> None:
    result = examine("--slow-rank", "0:0.5")
    assert result.code != 0, result.text
    assert "expected RANK:FACTOR" in result.text
    assert "Traceback" not in result.text


def test_without_doctor_it_is_the_list_and_starts_no_mpi() -> None:
    result = run([*DOCTOR[:-1]], MPI4PY_LIBMPI="/no/libmpi.so")
    assert result.code == 0, result.text
    assert "codec kernels, CPU" in result.out

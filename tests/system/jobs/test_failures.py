"""Jobs that cannot continue end on every rank, soon, and say why."""

import re
import sys
from pathlib import Path

import pytest

from tests.system.launch import JOB, ROOT, Result, horovodrun, mpirun, run

WORKERS = ROOT / "tests" / "system" / "workers"
SOON_S = 30
SHORT = ["--epochs", "1", "--max-steps", "3"]


def worker(name: str, *arguments: str) -> list[str]:
    return [sys.executable, str(WORKERS / name), *arguments]


def seconds_after(mark: str, result: Result) -> float:
    """Return the time from the last mark that a worker printed to the job's end."""
    times = [float(t) for t in re.findall(rf"{mark} ([\d.]+)", result.out)]
    assert times, result.text
    return result.ended - max(times)


def assert_clear(result: Result, messages: dict[int, str]) -> None:
    """Assert that each rank printed one line that matches, and no traceback."""
    assert result.code != 0, result.text
    assert "Traceback" not in result.text, result.text
    for rank, message in messages.items():
        lines = re.findall(rf"^.*rank {rank}: .*$", result.err, flags=re.MULTILINE)
        assert len(lines) == 1, result.text
        assert re.search(message, lines[0]), result.text


DISAGREEMENTS = {
    "shape": ("0.weight: torch.float32 [30, 40] here", "[31, 40] here"),
    "dtype": ("0.weight: torch.float32 [30, 40] here", "torch.float64 [30, 40] here"),
    "count": ("Number of entries by rank: {0: 4, 1: 6}", "1.weight: "),
    "ternary": ("'clip_factor': None", "'clip_factor': 3.0"),
    "exchange": ("'alltoall'", "'allgather'"),
}


IN_PROCESS = {"dtype", "exchange", "ternary"}
"""What tests/parallel/usage/test_refusals.py shows as well, without a job's start."""


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=[pytest.mark.slow] if what in IN_PROCESS else [])
        for what in DISAGREEMENTS
    ],
)
def test_ranks_that_disagree(what: str) -> None:
    result = run(mpirun(*[worker("disagree.py", what)] * 2))
    assert result.code != 0, result.text
    assert "MADE" not in result.out
    assert seconds_after("READY", result) < SOON_S
    for rank, expected in enumerate(DISAGREEMENTS[what]):
        lines = re.findall(rf"RankMismatchError: rank {rank}: .*", result.err)
        assert len(lines) == 1, result.text
        assert expected in lines[0], result.text
        other = f" on rank {1 - rank}."
        assert other in lines[0] or (what == "count" and rank == 0), result.text


def test_a_rank_that_does_not_come() -> None:
    absent = [worker("disagree.py", "absent")] * 3
    result = run(mpirun(*absent), KNET_START_TIMEOUT_S="8")
    assert result.code != 0, result.text
    assert "rank 0: parameters and settings of Distr" in result.err, result.text
    assert "not all ranks joined within 8 s (missing: 2)." in result.err, result.text
    assert seconds_after("READY", result) < 8 + SOON_S


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("allgather", "kill"),
        ("alltoall", "exit"),
        ("allreduce", "kill"),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in (("allgather", "exit"), ("alltoall", "kill"), ("allreduce", "exit"))
        ),
    ],
)
def test_a_rank_that_dies_under_mpirun(path: str, how: str) -> None:
    result = run(mpirun(*[worker("die.py", path, how)] * 3))
    assert result.code != 0, result.text
    assert seconds_after("DYING", result) < SOON_S


def test_a_rank_that_dies_under_horovodrun() -> None:
    result = run(horovodrun(worker("die.py", "alltoall", "kill")))
    assert result.code != 0, result.text
    assert seconds_after("DYING", result) < SOON_S


def test_data_files_that_are_missing(tmp_path: Path) -> None:
    flags = ["--data", "mnist", "--data-dir", str(tmp_path)]
    result = run(mpirun(*[[*JOB, *SHORT, *flags]] * 2))
    message = "train-images-idx3-ubyte or train-images-idx3-ubyte.gz"
    assert_clear(result, {0: message, 1: message})


def test_data_files_that_are_truncated(tmp_path: Path) -> None:
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in (60_000, 28, 28))
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(header + bytes(1000))
    flags = ["--data", "mnist", "--data-dir", str(tmp_path)]
    result = run(mpirun(*[[*JOB, *SHORT, *flags]] * 2))
    message = r"train-images-idx3-ubyte.*47[,_]?040[,_]?0(00|16)"
    assert_clear(result, {0: message, 1: message})


def test_images_that_are_smaller_than_the_crop() -> None:
    result = run(mpirun(*[[*JOB, "--crop-size", "9"]] * 2))
    assert_clear(result, dict.fromkeys((0, 1), "crop_size: expected at most 8"))

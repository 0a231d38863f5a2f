"""Ranks that leave a step, or change, under a script of the user's own."""

import sys
from pathlib import Path

import pytest

from tests.system.launch import mpirun, run

WORKERS = Path(__file__).parents[1] / "workers"


def told(worker: str, *arguments: str, ranks: int = 2) -> list[str]:
    """Return the lines that ranks print about the error that they got."""
    command = [sys.executable, str(WORKERS / worker), *arguments]
    result = run(mpirun(*[command] * ranks), HOROVOD_ELASTIC="1")
    assert result.code == 0, result.text
    return [line for line in result.out.splitlines() if "is told: " in line]


@pytest.mark.parametrize("path", ["allgather", "allreduce"])
@pytest.mark.parametrize("first", ["alone", "together"])
def test_the_number_of_ranks_changes(first: str, path: str) -> None:
    then = "together" if first == "alone" else "alone"
    lines = told("change_ranks.py", path, first, then)
    assert len(lines) == 2
    for line in lines:
        assert f"of {1 if first == 'alone' else 2} when" in line
        assert f"of {2 if first == 'alone' else 1} now" in line
        assert "Make the optimizer again after every change of the workers" in line


@pytest.mark.parametrize("path", ["allgather", "allreduce"])
def test_a_rank_with_fewer_batches_joins(path: str) -> None:
    lines = told("join.py", path, ranks=3)
    reasons = [line for line in lines if "hvd.join()" in line]
    assert len(reasons) == 2
    assert all("the same number of batches" in line for line in reasons)
    assert len(lines) == 3  # Horovod tells the one that waits in hvd.join()

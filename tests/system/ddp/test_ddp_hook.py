"""``ternary_hook`` under DistributedDataParallel, on ranks that are processes of their own."""

from pathlib import Path

import pytest

from tests.system.launch import ROOT
from tests.system.ranks import run_ranks

WORKERS = ROOT / "tests" / "system" / "workers"


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_training(num_ranks: int, tmp_path: Path) -> None:
    """What it shows has names in the script: means of codes, error feedback, resuming, NaN."""
    for rank in run_ranks(num_ranks, WORKERS / "ddp_training.py", tmp_path):
        assert rank.code == 0, rank.text


def test_ranks_that_disagree_say_on_what(tmp_path: Path) -> None:
    first, second = run_ranks(2, WORKERS / "ddp_failures.py", tmp_path, "disagree")
    assert "error_feedback: False here, True on rank 1" in first.err
    assert "error_feedback: True here, False on rank 0" in second.err
    assert (first.code, second.code) == (1, 1)
    assert max(first.seconds, second.seconds) < 30


def test_a_killed_rank_ends_backward_on_the_other(tmp_path: Path) -> None:
    other, killed = run_ranks(2, WORKERS / "ddp_failures.py", tmp_path, "kill")
    assert killed.code == -9
    assert other.code == 1, other.text
    assert "KnetError: rank 0: " in other.err
    assert "a rank has ended" in other.err
    assert other.seconds < 30


def test_an_error_in_the_thread_is_raised_by_backward(tmp_path: Path) -> None:
    """The other rank ends when its own limit has passed."""
    waiting, failing = run_ranks(2, WORKERS / "ddp_failures.py", tmp_path, "thread")
    assert "ValueError: the codec is broken" in failing.err
    assert "run_backward" in failing.err
    assert "KnetError: rank 0: codes.0.0.parameter.8.0 failed" in waiting.err
    assert (waiting.code, failing.code) == (1, 1)
    assert waiting.seconds < failing.seconds

"""Ranks that start late are waited for longer than ranks that fall silent, and are named."""

import sys

from tests.system.launch import ROOT, mpirun, run

WORKER = [sys.executable, str(ROOT / "tests" / "system" / "workers" / "come_late.py")]


def test_a_rank_may_start_later_than_it_may_be_silent() -> None:
    result = run(mpirun(*[[*WORKER, "3", "60"]] * 2))
    assert result.code == 2, result.text
    assert "rank 1: waiting for news: nothing came within 1 s" in result.out
    assert "settings" not in result.out
    assert "ready" not in result.out


def test_the_rank_that_does_not_start_is_named() -> None:
    result = run(mpirun(*[[*WORKER, "50", "4"]] * 3))
    assert result.code == 2, result.text
    for rank in (0, 1):
        waiting = f"rank {rank}: waiting for all ranks to join: nothing came within 4 s."
        (line,) = [line for line in result.out.splitlines() if line.startswith(waiting)]
        assert line.endswith("Missing: 2.")

"""Collectives over torch.distributed among processes of their own."""

from pathlib import Path

import pytest

from tests.system.launch import ROOT
from tests.system.ranks import run_ranks

WORKER = ROOT / "tests" / "system" / "workers" / "torch_collectives.py"


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_every_operation_gives_what_its_formula_says(num_ranks: int, tmp_path: Path) -> None:
    """Of all dtypes, odd and unequal sizes, NaN; of three ranks also among two of them."""
    for rank in run_ranks(num_ranks, WORKER, tmp_path, "operations"):
        assert rank.code == 0, rank.text


def test_a_killed_rank_ends_the_others_with_a_reason(tmp_path: Path) -> None:
    ranks = run_ranks(3, WORKER, tmp_path, "lost")
    assert ranks[1].code == -9
    for number in (0, 2):
        assert ranks[number].code == 1, ranks[number].text
        assert f"rank {number}: codes.1.fc failed: a rank has ended" in ranks[number].err
        assert ranks[number].seconds < 30, "their own limit was 60"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("waiting", "rank 0: scales.0.fc failed: a rank has ended, or did not take part in time"),
        ("absent", "rank 0: not all ranks made the process group of settings"),
    ],
)
def test_a_rank_that_does_not_come_is_not_waited_for_longer(
    what: str, reason: str, tmp_path: Path
) -> None:
    waiting, _ = run_ranks(2, WORKER, tmp_path, what)
    assert waiting.code == 1, waiting.text
    assert reason in waiting.err

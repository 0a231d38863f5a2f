"""Scripts with a Pipeline that end otherwise than planned: no rank waits for another."""

import sys
from pathlib import Path

import pytest

from tests.system.launch import mpirun, run

SCRIPT = """
import sys, torch
from torch import nn
from knet_hvd.pipeline import Pipeline

how = sys.argv[1]
pipeline = Pipeline(
    nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)),
    example=torch.zeros(1, 4),
    loss=nn.functional.cross_entropy,
    optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
)
for step in range(3 if how == "ends early" and pipeline.rank == 1 else 5):
    if how == "raises" and pipeline.rank == 1 and step == 2:
        raise OSError("my file is gone")
    pipeline.step(torch.ones(4, 4), torch.zeros(4, dtype=torch.int64))
if how == "exits":
    sys.exit(3)
"""


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("raises", 1, "rank 1 failed: my file is gone"),
        ("ends early", 1, "rank 1 ended training after 3 steps, rank 0 is in step 4"),
        ("exits", 3, ""),
        ("ends", 0, ""),
    ],
)
def test_every_rank_ends(how: str, code: int, text: str, tmp_path: Path) -> None:
    """Without a close: the end of the script is one."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    result = run(mpirun(*[[sys.executable, str(script), how]] * 2))  # within its limit
    assert result.code == code, result.text
    assert text in result.err

"""Checkpoints of pipelines: stages have to be the same, and become one model again.

What pipelines share with the data-parallel job is in ``jobs/test_both_jobs_resume.py``.
"""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from knet_hvd.models import build_model, parameters_sha256
from tests.system.launch import ROOT, mpirun, run

JOB = [sys.executable, str(ROOT / "jobs" / "train_pipeline.py")]
FLAGS = ["--decoupler", "delayed", "--deterministic", "--width", "0.25", "--epochs", "1"]
pytestmark = pytest.mark.timeout(600)


def job(folder: Path, *flags: str, num_ranks: int = 2) -> list[str]:
    """Return a command line; later flags override earlier ones."""
    saved = ["--checkpoint-dir", str(folder / "checkpoints")]
    saved += ["--summary", str(folder / "summary.json")]
    return mpirun(*[[*JOB, *FLAGS, *saved, *flags]] * num_ranks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a job that has ended."""
    folder = tmp_path_factory.mktemp("ended")
    result = run(job(folder))
    assert result.code == 0, result.text
    return folder


@pytest.mark.parametrize(
    ("flags", "num_ranks", "message"),
    [(["--cuts", "1"], 2, "cuts: 2 there, 1 here"), ([], 3, "stages: 2 there, 3 here")],
)
def test_what_differs_is_named_on_every_rank(
    flags: list[str], num_ranks: int, message: str, folder: Path
) -> None:
    result = run(job(folder, *flags, num_ranks=num_ranks))
    assert result.code == 1, result.text
    for rank in range(num_ranks):
        assert re.search(rf"rank {rank}: .*{message}", result.err), result.text


def test_the_exported_model_has_the_parameters_of_all_stages(folder: Path, tmp_path: Path) -> None:
    """They are there under their own names."""
    out = tmp_path / "model.pt"
    export = [sys.executable, "-m", "knet_hvd", "export"]
    result = run([*export, str(folder / "checkpoints"), str(out)])
    assert result.code == 0, result.text
    model = build_model("mnist4", in_shape=(1, 8, 8), num_classes=10, width=0.25)
    model.load_state_dict(torch.load(out, weights_only=True))
    blocks = list(model.children())
    stages = (nn.Sequential(*blocks[:2]), nn.Sequential(*blocks[2:]))
    summary = json.loads((folder / "summary.json").read_text())
    expected = [stage["parameters_sha256"] for stage in summary["stages"]]
    assert [parameters_sha256(stage) for stage in stages] == expected

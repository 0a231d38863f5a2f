"""A network and data of the user's own, in a folder of his own, in both jobs.

The code is that of docs/own_network_and_data.md. Whatever ranks it is cut into, the jobs have
to train what a plain loop in one process trains.
"""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from knet_hvd.data import ShardedBatches
from tests.system.launch import ROOT, mpirun, run

PAGE = ROOT / "docs" / "own_network_and_data.md"
BATCH, STEPS, RATE, SEED = 16, 12, 0.05, 3
OWN = ["--model", "mypkg.net:build", "--data", "mypkg.data:load"]
RUN = ["--optimizer", "momentum", "--learning-rate", str(RATE), "--seed", str(SEED)]
RUN += ["--compression", "none"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder with the package that the page shows."""
    for name, code in re.findall(r"```python\n# (mypkg/\w+\.py)\n(.*?)```", PAGE.read_text(), re.S):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mypkg", "mypkg.net", "mypkg.data"):
        sys.modules.pop(name, None)


def train_alone() -> tuple[float, float]:
    """Return the test loss and the test error after a plain loop in this process."""
    data = importlib.import_module("mypkg.data").load(None)
    torch.manual_seed(SEED)
    model = importlib.import_module("mypkg.net").build((6,), None, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=0.9)
    split = data.train
    shard = ShardedBatches(inputs=split.inputs, targets=split.targets, batch_size=BATCH, seed=SEED)
    for _, (inputs, targets) in zip(range(STEPS), shard.batches(0), strict=False):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
    with torch.no_grad():
        difference = model(data.test.inputs) - data.test.targets
    return float(difference.square().mean()), float(difference.abs().mean())


def command(job: str, num_ranks: int, *flags: str, steps: int = STEPS) -> list[str]:
    line = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *OWN, *RUN, *flags]
    line += ["--max-steps", str(steps), "--summary", "summary.json"]
    return mpirun(*[line] * num_ranks)


def trained(line: list[str]) -> dict[str, Any]:
    result = run(line)
    assert result.code == 0, result.text
    summary: dict[str, Any] = json.loads(Path("summary.json").read_text())
    return summary


def assert_as_alone(summary: dict[str, Any]) -> None:
    loss, error = train_alone()
    assert summary["test_loss"] == pytest.approx(loss, rel=1e-4)
    assert summary["test_error"] == pytest.approx(error, rel=1e-4)
    assert "test_accuracy" not in summary
    assert summary["steps"] == STEPS


@pytest.mark.parametrize(
    ("job", "flags"),
    [
        ("train_data_parallel", ["--batch-size", str(BATCH // 2)]),
        ("train_pipeline", ["--batch-size", str(BATCH), "--decoupler", "backprop"]),
    ],
)
def test_a_job_of_two_ranks_that_is_stopped_and_continues(job: str, flags: list[str]) -> None:
    flags += ["--checkpoint-dir", "checkpoints"]
    first = trained(command(job, 2, *flags, steps=STEPS // 2))
    assert first["steps"] == STEPS // 2
    second = trained(command(job, 2, *flags))
    assert second["resumed_step"] == STEPS // 2
    assert_as_alone(second)
    if job == "train_pipeline":
        assert len(second["stages"]) == 2
        assert second["train_error"] > 0


def test_two_stages_of_two_replicas() -> None:
    flags = ["--stages", "2", "--replicas", "2", "--decoupler", "backprop"]
    summary = trained(command("train_pipeline", 4, *flags, "--batch-size", str(BATCH // 2)))
    assert [len(stage["ranks"]) for stage in summary["stages"]] == [2, 2]
    assert_as_alone(summary)


@pytest.mark.parametrize("job", ["train_data_parallel", "train_pipeline"])
def test_a_function_that_is_not_there_is_told_by_each_rank(job: str) -> None:
    line = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *OWN, "--model", "mypkg.net:bild"]
    result = run(mpirun(line, line))
    assert result.code == 1, result.text
    for rank in (0, 1):
        reason = f"{job}: rank {rank}: mypkg.net:bild: mypkg.net has no bild; it has build\n"
        assert result.err.count(reason) == 1, result.text
    assert "Traceback" not in result.text, result.text


def test_a_path_that_is_none_is_a_wrong_flag() -> None:
    line = [
        sys.executable,
        str(ROOT / "jobs" / "train_pipeline.py"),
        "--data",
        "mypkg/data.py:load",
    ]
    result = run(line)
    assert result.code == 2, result.text
    assert "expected a name as package.module:function, got 'mypkg/data.py:load'" in result.err


def test_data_that_differs_between_ranks() -> None:
    drawn = (
        Path("mypkg/data.py").read_text().replace(".manual_seed(1)", ".manual_seed(os.getpid())")
    )
    Path("mypkg/data.py").write_text(f"import os\n{drawn}")
    result = run(command("train_pipeline", 2, "--decoupler", "backprop"))
    assert result.code == 1, result.text
    assert "the data set" in result.err, result.text
    assert "training targets" in result.err, result.text

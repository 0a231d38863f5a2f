"""Jobs that are put back into the queue end as if nobody had disturbed them."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.slurm.submit import LIMIT_S, ROOT, Slurm
from tests.system.launch import mpirun, run

# Steps that take long enough to be interrupted, whatever the machine.
STEPS = 100
FLAGS = ["--max-steps", str(STEPS), "--checkpoint-every", "10"]
VGG16 = ["--model", "vgg16", "--width", "0.25"]
OWN = ["--model", "ownpkg.net:build"]
TEMPLATES = {
    "data_parallel": [*VGG16, *FLAGS, "--ternary.error-feedback", "--batch-size", "48"],
    "pipeline": [*OWN, *FLAGS, "--decoupler", "delayed", "--deterministic"],
}
NET = """
from torch import nn


def build(in_shape):
    layers = [nn.Sequential(nn.Linear(1024, 1024), nn.ReLU()) for _ in range(8)]
    return nn.Sequential(nn.Linear(in_shape[0], 1024), *layers, nn.Linear(1024, 4))
"""
DATA = """
import torch
from knet_hvd.data import Dataset


def load():
    inputs = torch.randn(5000, 32, generator=torch.Generator().manual_seed(1))
    targets = inputs[:, :4].argmax(1)
    train, test = (inputs[:4800], targets[:4800]), (inputs[4800:], targets[4800:])
    return Dataset(train, test, num_classes=4)
"""

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


@pytest.fixture
def own_package(tmp_path: Path) -> str:
    """The folder of a network and data of a user's own."""
    package = tmp_path / "own" / "ownpkg"
    package.mkdir(parents=True)
    (package / "net.py").write_text(NET)
    (package / "data.py").write_text(DATA)
    return str(package.parent)


def hashes(summary: Path) -> list[str]:
    return re.findall(r'"parameters_sha256": "(\w+)"', summary.read_text())


def data_of(template: str) -> str:
    return "ownpkg.data:load" if template == "pipeline" else "digits"


def straight(template: str, summary: Path, folder: str) -> list[str]:
    """The hashes of the same job without Slurm, which nobody disturbs."""
    job = [sys.executable, str(ROOT / "jobs" / f"train_{template}.py")]
    command = [*job, *TEMPLATES[template], "--data", data_of(template), "--summary", str(summary)]
    result = run(mpirun(command, command), PYTHONPATH=folder)
    assert result.code == 0, result.text
    return hashes(summary)


def latest_step(folder: Path) -> int:
    found = (re.fullmatch(r"step-(\d+)", f.name) for f in folder.glob("checkpoints/*"))
    return max((int(match[1]) for match in found if match), default=0)


def runs_after(slurm: Slurm, job: str, restarts: int) -> bool:
    shown = slurm.run("scontrol", "show", "job", job)
    return "JobState=RUNNING" in shown and f"Restarts={restarts} " in shown


@pytest.mark.parametrize(
    ("template", "commands"),
    [
        ("data_parallel", ["scontrol requeue"]),
        # The second one is what a job gets when its time limit comes near.
        ("pipeline", ["scontrol requeue", "scancel --batch --signal=USR1"]),
    ],
)
def test_a_requeued_job_ends_in_the_same_parameters(
    template: str, commands: list[str], slurm: Slurm, tmp_path: Path, own_package: str
) -> None:
    expected = straight(template, tmp_path / "straight.json", own_package)
    # As many threads as in the other run, or sums come out otherwise.
    options = ("--cpus-per-task=1",)
    # Starting ranks on a busy machine hangs now and then; it is tried twice.
    flags = TEMPLATES[template]
    environment = {"KNET_DATA": data_of(template), "PYTHONPATH": own_package}
    job = slurm.submit(template, *flags, options=options, KNET_START_LIMIT_S="40", **environment)
    folder = slurm.runs / f"{template}-{job}"
    for number, command in enumerate(commands):
        # Ranks that are told to stop save their state: that is no progress of the next start.
        slurm.until(lambda n=number: runs_after(slurm, job, restarts=n), "the job to start")
        seen = latest_step(folder)
        slurm.until(lambda seen=seen: latest_step(folder) > seen, "a checkpoint")
        slurm.run(*command.split(), job)
        slurm.until(lambda: slurm.states(job) != {"RUNNING"}, "the job to stop")
    seen = latest_step(folder)
    assert slurm.wait(job) == {"COMPLETED"}, slurm.text()
    restarts = f"Restarts={len(commands)} "
    assert restarts in slurm.run("scontrol", "show", "job", job), slurm.text()
    summary = json.loads((folder / "summary.json").read_text())
    assert seen <= summary["resumed_step"] < summary["steps"] == STEPS, slurm.text()
    assert hashes(folder / "summary.json") == expected

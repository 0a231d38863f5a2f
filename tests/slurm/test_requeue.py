"""Jobs that are put back into the queue end as if nobody had disturbed them."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.slurm.submit import LIMIT_S, ROOT, Slurm
from tests.system.launch import mpirun, run

# Steps that take long enough to be interrupted, whatever the machine.
FLAGS = ["--model", "vgg16", "--width", "0.25", "--max-steps", "60"]
FLAGS += ["--checkpoint-every", "10"]
TEMPLATES = {
    "data_parallel": [*FLAGS, "--ternary.error-feedback", "--batch-size", "48"],
    "pipeline": [*FLAGS, "--decoupler", "delayed", "--deterministic"],
}

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


def hashes(summary: Path) -> list[str]:
    return re.findall(r'"parameters_sha256": "(\w+)"', summary.read_text())


def straight(template: str, summary: Path) -> list[str]:
    """The hashes of the same job without Slurm, which nobody disturbs."""
    job = [sys.executable, str(ROOT / "jobs" / f"train_{template}.py")]
    command = [*job, *TEMPLATES[template], "--summary", str(summary)]
    result = run(mpirun(command, command))
    assert result.code == 0, result.text
    return hashes(summary)


def latest_step(folder: Path) -> int:
    found = (re.fullmatch(r"step-(\d+)", f.name) for f in folder.glob("checkpoints/*"))
    return max((int(match[1]) for match in found if match), default=0)


@pytest.mark.parametrize(
    ("template", "commands"),
    [
        ("data_parallel", ["scontrol requeue"]),
        # The second one is what a job gets when its time limit comes near.
        ("pipeline", ["scontrol requeue", "scancel --batch --signal=USR1"]),
    ],
)
def test_a_requeued_job_ends_in_the_same_parameters(
    template: str, commands: list[str], slurm: Slurm, tmp_path: Path
) -> None:
    expected = straight(template, tmp_path / "straight.json")
    # As many threads as in the other run, or sums come out otherwise.
    options = ("--cpus-per-task=1",)
    # Starting ranks on a busy machine hangs now and then; it is tried twice.
    flags = TEMPLATES[template]
    job = slurm.submit(template, *flags, options=options, KNET_START_LIMIT_S="40")
    folder = slurm.runs / f"{template}-{job}"
    seen = 0
    for command in commands:
        slurm.until(lambda seen=seen: latest_step(folder) > seen, "a checkpoint")
        slurm.run(*command.split(), job)
        slurm.until(lambda: slurm.states(job) != {"RUNNING"}, "the job to stop")
        seen = latest_step(folder)
    assert slurm.wait(job) == {"COMPLETED"}, slurm.text()
    restarts = f"Restarts={len(commands)} "
    assert restarts in slurm.run("scontrol", "show", "job", job), slurm.text()
    summary = json.loads((folder / "summary.json").read_text())
    assert seen <= summary["resumed_step"] < summary["steps"] == 60, slurm.text()
    assert hashes(folder / "summary.json") == expected

"""Jobs that are put back into the queue end as if nobody had disturbed them."""

import json
import re
from pathlib import Path

import pytest

from tests.slurm.submit import LIMIT_S, Slurm

FLAGS = ["--epochs", "60", "--checkpoint-every", "50"]
TEMPLATES = {
    "data_parallel": [*FLAGS, "--model", "mlp", "--ternary.error-feedback"],
    "pipeline": [*FLAGS, "--decoupler", "delayed", "--deterministic"],
    "hybrid": [*FLAGS, "--batch-size", "32", "--ternary.error-feedback"],
}

pytestmark = pytest.mark.timeout(2 * LIMIT_S)


def hashes(folder: Path) -> list[str]:
    text = (folder / "summary.json").read_text()
    return re.findall(r'"parameters_sha256": "(\w+)"', text)


@pytest.mark.parametrize(
    ("template", "command"),
    [
        ("data_parallel", ["scontrol", "requeue"]),
        ("pipeline", ["scontrol", "requeue"]),
        ("hybrid", ["scancel", "--batch", "--signal=USR1"]),  # as near the time limit
    ],
)
def test_a_requeued_job_ends_in_the_same_parameters(
    template: str, command: list[str], slurm: Slurm
) -> None:
    straight = slurm.submit(template, *TEMPLATES[template])
    job = slurm.submit(template, *TEMPLATES[template])
    folder = slurm.runs / f"{template}-{job}"
    slurm.until(lambda: list(folder.glob("checkpoints/step-*[0-9]")), "a checkpoint")
    slurm.run(*command, job)
    for each in (job, straight):
        assert slurm.wait(each) == {"COMPLETED"}, slurm.text()
    assert "Restarts=1 " in slurm.run("scontrol", "show", "job", job)
    summary = json.loads((folder / "summary.json").read_text())
    assert 0 < summary["resumed_step"] < summary["steps"], slurm.text()
    expected = hashes(slurm.runs / f"{template}-{straight}")
    assert len(expected) == (1 if template == "data_parallel" else 2)
    assert hashes(folder) == expected

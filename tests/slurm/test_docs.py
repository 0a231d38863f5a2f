"""The commands of docs/slurm.md, as they are written."""

import re
from pathlib import Path

import pytest

from tests.slurm.submit import ROOT, Slurm

PAGE = (ROOT / "docs" / "slurm.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
SBATCH = [block for block in BLOCKS if "sbatch" in block]


def test_every_template_is_shown_and_submitted_by_the_page() -> None:
    templates = {file.name for file in (ROOT / "slurm").glob("*.sbatch")}
    assert set(re.findall(r"^\| `(\w+\.sbatch)`", PAGE, re.MULTILINE)) == templates
    assert set(re.findall(r"slurm/(\w+\.sbatch)", "\n".join(SBATCH))) == templates


@pytest.mark.parametrize("block", SBATCH, ids=lambda block: block.split()[-1])
def test_slurm_accepts_the_commands(block: str, slurm: Slurm) -> None:
    """Only asks whether they could run: what they do, test_templates.py shows."""
    slurm.run("bash", "-ec", block.replace("sbatch ", "sbatch --test-only "))


@pytest.mark.parametrize("template", sorted((ROOT / "slurm").glob("*.sbatch")))
def test_slurm_accepts_the_command_at_the_top(template: Path, slurm: Slurm) -> None:
    text = template.read_text()
    commands = re.findall(r"^#   (\. slurm/env.sh && sbatch .*?)(?: {3}.*)?$", text, re.M)
    assert commands
    for command in commands:
        smaller = command.replace("--nodes=4", "--nodes=2")  # there are no more
        slurm.run("bash", "-ec", smaller.replace("sbatch ", "sbatch --test-only ", 1))


def test_a_site_s_queue_is_taken_from_the_environment(slurm: Slurm) -> None:
    command = ". slurm/env.sh && sbatch --test-only slurm/doctor.sbatch 2>&1 || true"
    text = slurm.run("bash", "-ec", command, KNET_PARTITION="no-such-partition")
    assert "invalid partition specified: no-such-partition" in text

"""docs/checkpoints.md: its commands work as they are written, and its flags are there."""

import re
from pathlib import Path

from tests.system.launch import JOB, ROOT, run


def test_help_names_the_exit_code() -> None:
    result = run([*JOB, "--help"])
    assert "exits with code 75" in " ".join(result.out.split()).replace("│", "")


def test_the_commands_of_the_documentation(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "checkpoints.md").read_text()
    train, slurm, export = re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)
    train = train.replace("python jobs/", f"python {ROOT}/jobs/")
    script = f"cd {tmp_path}\n{train}\n{export}"
    result = run(["bash", "-ec", script], OMPI_MCA_mpi_yield_when_idle="1")
    assert result.code == 0, result.text
    assert "model.pt: 8 tensors" in result.out
    assert run(["bash", "-n", "-c", slurm]).code == 0


def test_the_documentation_names_what_there_is() -> None:
    text = (ROOT / "docs" / "checkpoints.md").read_text()
    flags = set(re.findall(r"`(--[a-z-]+)", text))
    known = run([*JOB, "--help"]).out
    foreign = {"--signal", "--average", "--requeue"}
    assert flags - foreign
    for flag in flags - foreign:
        assert flag in known, flag

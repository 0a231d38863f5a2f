"""The commands of docs/slurm.md that need no Slurm, on a host file of this machine."""

import re
from pathlib import Path

from tests.system.launch import ROOT, run

PAGE = (ROOT / "docs" / "slurm.md").read_text()


def test_a_host_file_is_all_that_mpirun_needs(tmp_path: Path) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, flags=re.DOTALL)
    (block,) = (block for block in blocks if "--hostfile" in block)
    (hosts,) = re.findall(r"```text\n(node1.*?)```", PAGE, flags=re.DOTALL)
    assert hosts.splitlines() == ["node1 slots=1", "node2 slots=1"]
    (tmp_path / "hosts").write_text("localhost slots=2\n")
    lines = [line for line in block.splitlines() if not line.startswith("source")]
    script = "\n".join(lines).replace("jobs/", f"{ROOT}/jobs/")
    # A server would not return: --inspect reads the same files and ends.
    script = script.replace("tensorboard --logdir", "tensorboard --inspect --logdir")
    script = script.replace("--host 127.0.0.1 --port 6006", "")
    script = script.replace("--epochs 3", "--max-steps 20")
    result = run(["bash", "-ec", f"cd {tmp_path}\n{script}"], OMPI_MCA_mpi_yield_when_idle="1")
    assert result.code == 0, result.text
    assert "0-1" in result.out
    assert "2 ranks, ternary: test accuracy" in result.out
    assert list((tmp_path / "runs" / "hosts").glob("events.*"))


def test_make_setup_is_a_target() -> None:
    assert "```bash\nmake setup\n```" in PAGE
    result = run(["make", "--dry-run", "--directory", str(ROOT), "setup"])
    assert result.code == 0, result.text

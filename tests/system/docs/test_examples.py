"""The scripts of examples/, as their first lines tell to run them."""

import re
import sys
from pathlib import Path

import pytest
import torch

from tests.system.launch import ROOT, mpirun, run

EXAMPLES = ROOT / "examples"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def epochs(text: str) -> list[str]:
    """Return what the ranks together said of their epochs."""
    return re.findall(r"epoch .*", text)


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    script = [sys.executable, str(EXAMPLES / "own_pipeline.py"), "--out", str(out)]
    alone = run(script)
    assert alone.code == 0, alone.text
    together = run(mpirun(*[script] * 2))
    assert together.code == 0, together.text
    assert len(epochs(together.text)) == 6
    assert epochs(together.text) == epochs(alone.text), "two stages compute what one process does"
    assert "| 1 | 1 | 3, 4, 5 |" in together.text
    state = torch.load(out, weights_only=True)
    assert len(state) == 12


def test_four_stages_that_do_not_wait(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "own_pipeline.py"), "--decoupler", "local"]
    script += ["--out", str(tmp_path / "model.pt")]
    result = run(mpirun(*[script] * 4))
    assert result.code == 0, result.text
    accuracy = float(epochs(result.text)[-1].split()[-1])
    assert accuracy > 0.8, "0.1 by chance"


def test_a_transformer_of_ones_own() -> None:
    script = [sys.executable, str(EXAMPLES / "own_transformer.py"), "--steps", "100"]
    result = run(mpirun(*[script] * 2))
    assert result.code == 0, result.text
    nats = [float(found) for found in re.findall(r"([\d.]+) nats", result.text)]
    assert nats[-1] < 2.9, "letters alone, by how often they come: 3.2"


@pytest.mark.parametrize("path", ["optimizer", "argument"])
def test_a_script_with_horovod(path: str) -> None:
    script = [sys.executable, str(EXAMPLES / "horovod_script.py"), "--path", path]
    result = run(mpirun(*[script] * 2))
    assert result.code == 0, result.text
    assert len(epochs(result.text)) == 5


def test_a_script_with_distributed_data_parallel() -> None:
    result = run([*TORCHRUN, "--standalone", str(EXAMPLES / "ddp_hook.py")])
    assert result.code == 0, result.text
    accuracy = float(epochs(result.text)[-1].split()[-1])
    assert accuracy > 0.9, "a third by chance"
    sent, plain = re.findall(r"(\d+) bytes", result.text)
    assert int(sent) * 8 < int(plain)


def test_the_same_task_in_pytorchs_pipeline() -> None:
    """It stands beside ours in docs/own_pipeline.md, so it has to run."""
    result = run([*TORCHRUN, "--standalone", str(EXAMPLES / "torch_pipeline.py")])
    assert result.code == 0, result.text
    assert len(epochs(result.text)) == 6

"""An ordinary Horovod script trains with ternary gradients after one change."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.launch import ROOT, horovodrun, mpirun, run

SCRIPT = ROOT / "tests" / "parallel" / "scripts" / "train_plain.py"
IMPORT = "from horovod.torch import DistributedOptimizer\n"
LAUNCHERS: dict[str, Callable[[list[str]], list[str]]] = {
    "mpirun": lambda command: mpirun(command, command),
    "horovodrun": horovodrun,
}


def check_training(script: Path, launcher: str, *flags: str) -> None:
    result = run(LAUNCHERS[launcher]([sys.executable, str(script), *flags]))
    assert result.code == 0, result.text
    rows = re.findall(r"epoch (\d+): loss ([\d.]+), accuracy ([\d.]+)", result.out)
    assert [int(row[0]) for row in rows] == list(range(10)), result.text
    losses = [float(row[1]) for row in rows]
    assert losses[-1] < losses[0] / 5
    assert float(rows[-1][2]) > 0.85, result.text


@pytest.mark.parametrize(
    ("compression", "launcher"),
    [
        ("ternary", "mpirun"),
        pytest.param("ternary", "horovodrun", marks=pytest.mark.slow),
        *(pytest.param(own, "mpirun", marks=pytest.mark.slow) for own in ("none", "fp16")),
        pytest.param("none", "horovodrun", marks=pytest.mark.slow),
    ],
)
def test_the_compression_argument(compression: str, launcher: str) -> None:
    """What is slow here is Horovod's own, or what the import shows under that launcher."""
    check_training(SCRIPT, launcher, "--epochs", "10", "--compression", compression)


@pytest.mark.parametrize(
    ("optimizer", "launcher"),
    [
        pytest.param("SGD", "mpirun", marks=pytest.mark.slow),
        ("SGD", "horovodrun"),
        ("Adam", "mpirun"),
        pytest.param("Adam", "horovodrun", marks=pytest.mark.slow),
    ],
)
def test_the_import_of_the_optimizer(optimizer: str, launcher: str, tmp_path: Path) -> None:
    plain = SCRIPT.read_text()
    assert plain.count(IMPORT) == 1
    changed = plain.replace(IMPORT, IMPORT.replace("horovod.torch", "knet_hvd"))
    differing = [
        pair
        for pair in zip(plain.splitlines(), changed.splitlines(), strict=True)
        if pair[0] != pair[1]
    ]
    assert len(differing) == 1
    script = tmp_path / "train_import.py"
    script.write_text(changed)
    check_training(script, launcher, "--epochs", "10", "--optimizer", optimizer)

"""The CUDA kernels, compiled as C++ with their threads emulated, give the CPU kernels' bits.

A machine without a GPU finds wrong indices, misaligned accesses and missing barriers this
way. That it would is tested, too: with mistakes that are planted in a copy.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "tools" / "emulate_cuda.sh"
ROUNDS = 15

pytestmark = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "c++")) is None, reason="needs a C++ compiler"
)


def emulate(source: Path, build: Path, seed: int = 1) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(SCRIPT), str(ROUNDS), str(seed), str(source), str(build)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the sources, and the folder with what they are compiled to."""
    folder = tmp_path_factory.mktemp("emulator")
    shutil.copytree(ROOT / "cuda_ext", folder / "cuda_ext")
    found = emulate(folder / "cuda_ext", folder / "build")
    assert found.returncode == 0, found.stderr
    assert f"{ROUNDS} rounds of every op agree" in found.stdout
    return folder / "cuda_ext", folder / "build"


def test_the_kernels_agree_with_the_cpu(compiled) -> None:
    found = emulate(*compiled, seed=2)  # other rounds than those of the fixture
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("encode.cu", "(weight << (8 * i))", "(weight << (8 * (3 - i)))"),
        ("decode.cu", "i / 4 * 2 + i % 2", "i / 4 * 2 + (i + 1) % 2"),
        ("statistics.cu", "    __syncthreads();\n", ""),
        ("statistics.cu", "a.first_result + scale_group;", "a.first_result + scale_group + 1;"),
        ("digits.cu", "+ in_block;\n    exists", "+ in_block + 1;\n    exists"),
    ],
    ids=["byte order", "digit index", "barrier", "result index", "alignment"],
)
def test_a_planted_mistake_is_found(compiled, tmp_path, file, right, wrong) -> None:
    source, build = tmp_path / "cuda_ext", tmp_path / "build"
    for original, copy in zip(compiled, (source, build), strict=True):
        shutil.copytree(original, copy)  # with times, so that one file is compiled again
    text = (source / "cuda" / file).read_text()
    assert text.count(right) == 1
    (source / "cuda" / file).write_text(text.replace(right, wrong))
    found = emulate(source, build)
    assert found.returncode != 0
    assert "agree" not in found.stdout
    assert "error:" not in found.stderr  # it did compile

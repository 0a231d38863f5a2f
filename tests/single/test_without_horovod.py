"""The package where Horovod and mpi4py are not installed: only what needs them is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HIDE = """
import importlib, pkgutil, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("horovod", "mpi4py"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
IMPORT_ALL = """
import knet_hvd

print(knet_hvd.TernaryConfig().wire_format)
for module in pkgutil.walk_packages(knet_hvd.__path__, "knet_hvd.", onerror=lambda name: None):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ImportError as error:
        if error.name in ("horovod", "mpi4py", "horovod.torch"):
            print("without", error.name, module.name)
        elif ".libknet_ops" not in module.name:  # the library is no Python module
            raise
"""
HOROVOD_ONLY = (
    "knet_hvd.collectives.horovod",
    "knet_hvd.data_parallel.allreduce",
    "knet_hvd.data_parallel.horovod_arguments",
    "knet_hvd.data_parallel.optimizer",
    "knet_hvd.data_parallel.ranks.checkpoint_ranks",
    "knet_hvd.data_parallel.ranks.features",
    "knet_hvd.data_parallel.ranks.fixed_ranks",
    "knet_hvd.data_parallel.replicas",
    "knet_hvd.training.data_parallel",
    "knet_hvd.training.elastic",
)
MPI_ONLY = ("knet_hvd.comm", "knet_hvd.doctor.ranks", "knet_hvd.pipeline", "knet_hvd.training")


def run(code: str) -> str:
    command = [sys.executable, "-c", HIDE + code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def missing() -> list[list[str]]:
    first, *rest = run(IMPORT_ALL).splitlines()
    assert first == "trit5"
    return [line.split()[1:] for line in rest]


def test_only_horovods_own_paths_need_horovod(missing: list[list[str]]) -> None:
    names = [name for package, name in missing if package != "mpi4py"]
    assert "knet_hvd.collectives.horovod" in names
    assert [name for name in names if not name.startswith(HOROVOD_ONLY)] == []


def test_only_what_talks_over_mpi_needs_mpi4py(missing: list[list[str]]) -> None:
    names = [name for package, name in missing if package == "mpi4py"]
    assert "knet_hvd.comm.world" in names
    assert [name for name in names if not name.startswith(MPI_ONLY)] == []


def test_the_report_says_that_horovod_is_missing() -> None:
    out = run(
        "import runpy\nsys.argv = ['knet_hvd']\nrunpy.run_module('knet_hvd', run_name='__main__')"
    )
    assert "No module named 'horovod" in out

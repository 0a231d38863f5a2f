"""What the native builds decide before they compile anything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HOROVOD_")}
    return subprocess.run(
        command,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(
    shutil.which("nvcc") is None or shutil.which("cmake") is None, reason="needs nvcc and cmake"
)
def test_gpus_too_old_for_the_kernels_are_skipped(tmp_path) -> None:
    """The wheels of torch 2.4 name sm_50 and sm_60, for which __grid_constant__ is an error."""
    options = ("-DKNET_CUDA=on", "-DKNET_TORCH_CUDA_ARCHS=sm_50;sm_60;sm_80;sm_90")
    found = run("cmake", "-S", str(ROOT), "-B", str(tmp_path), *options)
    assert found.returncode == 0, found.stderr
    assert "CUDA kernels: not for sm_50: sm_70 is the oldest" in found.stdout
    assert "CUDA kernels: not for sm_60" in found.stdout
    assert "GPUs 80;90\n" in found.stdout


def test_a_horovod_with_gpus_is_another_wheel() -> None:
    """Or the wheel without NCCL would be found in the cache, and installed again."""
    keys = []
    for environment in (
        {},
        {"HOROVOD_GPU_OPERATIONS": "NCCL"},
        {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_NCCL_HOME": "/opt/nccl"},
    ):
        script = str(ROOT / "tools" / "build_horovod.sh")
        found = run("bash", script, "--key", sys.executable, **environment)
        assert found.returncode == 0, found.stderr
        keys.append(found.stdout.strip())
    assert len(set(keys)) == 3
    assert all(key.startswith("horovod-0.") for key in keys)

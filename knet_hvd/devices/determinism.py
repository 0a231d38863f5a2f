"""Have a device compute the same bits whenever it computes the same."""

import os

import torch

from knet_hvd.errors import KnetError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACE = ":4096:8"  # of the two that PyTorch accepts, the one that is not slower


def compute_deterministically() -> None:
    """Let PyTorch use deterministic kernels only, in all of this process, on any device.

    A kernel that has no deterministic form raises RuntimeError then. cuBLAS reads its setting
    once, so this has to come before the process touches a GPU. A setting of the user's in
    ``CUBLAS_WORKSPACE_CONFIG`` stays.

    Raises:
        KnetError: If CUDA was initialized before cuBLAS had its setting.
    """
    if _WORKSPACE not in os.environ:
        if torch.cuda.is_initialized():
            raise KnetError(
                f"deterministic: expected {_WORKSPACE} to be set before the first use of a GPU, "
                f"got a process that has used one without it: set {_WORKSPACE}={_FIXED_WORKSPACE} "
                "in the environment"
            )
        os.environ[_WORKSPACE] = _FIXED_WORKSPACE
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it takes the kernel that is fastest this time

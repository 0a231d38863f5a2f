"""Choose the device of this rank: the CPU, or the GPU of its number on this host."""

import os

import torch

from knet_hvd.errors import KnetError

CPU = torch.device("cpu")
DEVICE_CHOICES = ("auto", "cpu", "cuda")
_LOCAL_RANKS = (
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "HOROVOD_LOCAL_RANK",
    "MPI_LOCALRANKID",
    "SLURM_LOCALID",
    "LOCAL_RANK",
)
"""What launchers call the number of a rank on its host; the first one that is set counts."""


def choose_device(choice: str | torch.device, local_rank: int | None = None) -> torch.device:
    """Return the device that this rank takes.

    Where a rank sees one GPU, it takes that: Slurm shows each task its own, or the user has
    set ``CUDA_VISIBLE_DEVICES`` for each rank. ``take_device`` finds out if another rank has
    taken the same.

    Args:
        choice: auto: the GPU of this rank's number on its host, the CPU where there is no
            GPU; cuda: that GPU; cpu; or a device of PyTorch's, which is taken as it is.
        local_rank: The number of this rank on its host; the launcher's if not given.

    Raises:
        KnetError: If there is no such GPU.
        ValueError: If there is no such kind of device.
    """
    if choice not in DEVICE_CHOICES:
        return _named_device(choice)
    count = 0 if choice == "cpu" else torch.cuda.device_count()
    if choice == "cuda" and count == 0:
        raise KnetError(f"device cuda: expected a GPU, got none: {_why_no_gpu()}")
    if count == 0:
        return CPU
    local_rank = _local_rank() if local_rank is None else local_rank
    if count > 1 and local_rank >= count:
        raise KnetError(
            f"device {choice}: expected at most one rank for each of the {count} GPUs of this "
            f"host, got a rank whose number on it is {local_rank}, from 0: start fewer ranks "
            "on the host, or take the CPU (device cpu)"
        )
    return torch.device("cuda", local_rank if count > 1 else 0)


def _named_device(choice: str | torch.device) -> torch.device:
    """Return a device of PyTorch's by its name."""
    try:
        device = torch.device(choice)
    except RuntimeError as reason:
        names = ", ".join(DEVICE_CHOICES)
        raise ValueError(
            f"device: expected {names} or a device of PyTorch's, got {choice!r}"
        ) from reason
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        text = f"{count} GPUs" if count else f"no GPU: {_why_no_gpu()}"
        raise KnetError(f"device {device}: this rank sees {text}")
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def _local_rank() -> int:
    """Return the number of this rank on its host; 0 without a launcher."""
    texts = (os.environ.get(name, "") for name in _LOCAL_RANKS)
    return next((int(text) for text in texts if text.isdecimal()), 0)


def _why_no_gpu() -> str:
    """Return what keeps this rank from seeing a GPU."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"PyTorch {torch.__version__} is built without CUDA"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return f"PyTorch sees none with CUDA_VISIBLE_DEVICES={visible!r}"
    return "PyTorch sees none; nvidia-smi shows whether the driver does"

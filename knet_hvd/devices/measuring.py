"""Time and memory of a device, which a GPU counts otherwise than the CPU."""

import torch


def finish(device: torch.device) -> None:
    """Wait until all that was started on a device is done, so that a clock may be read.

    The CPU has always done it.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def restart_device_peak(device: torch.device) -> None:
    """Forget earlier peaks of a GPU's memory; nothing on the CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_peak_bytes(device: torch.device) -> int | None:
    """Return the most bytes that tensors took on a GPU; None on the CPU."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None

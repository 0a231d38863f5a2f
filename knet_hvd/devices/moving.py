"""Bring tensors to a device."""

import torch
from torch import Tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; one that is there is not copied.

    A copy to a GPU goes through pinned memory, and the host does not wait for it. One to the
    CPU is complete on return.

    Args:
        tensor: On any device.
        device: Where it is wanted.
    """
    if device.type != "cuda" or not tensor.is_cpu:
        return tensor.to(device)
    pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
    return pinned.to(device, non_blocking=True)

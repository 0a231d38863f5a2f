"""What the PyTorch kernels share."""

import torch
from torch import Tensor


def padded(flat: Tensor, length: int) -> Tensor:
    """Return values [n] with zeros after them, up to ``length``."""
    return torch.nn.functional.pad(flat, (0, length - flat.numel()))

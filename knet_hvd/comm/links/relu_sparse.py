"""The encoding `relu-sparse`: a bitmap of the values that are not zero, then these values."""

import numpy as np
import torch
from torch import Tensor


def bitmap_bytes(num_values: int) -> int:
    """Return the bytes of the bitmap, padded so that values after it are aligned."""
    return (num_values + 31) // 32 * 4


def encode(flat: Tensor, out: Tensor) -> int | None:
    """Write bitmap and values.

    Args:
        flat: fp32 [n] on the CPU.
        out: uint8 [4n or more] on the CPU, 4-byte aligned.

    Returns:
        The bytes written, or None if fp32 is not longer; then nothing is written.
    """
    mask = flat != 0
    values = flat[mask]
    start = bitmap_bytes(flat.numel())
    end = start + 4 * values.numel()
    if end >= 4 * flat.numel():
        return None
    bits = np.packbits(mask.numpy())
    out[: len(bits)] = torch.from_numpy(bits)
    out[len(bits) : start] = 0
    out[start:end].view(torch.float32).copy_(values)
    return end


def decode(payload: Tensor, num_values: int) -> Tensor:
    """Return what `encode` wrote.

    Args:
        payload: uint8 [bytes written] on the CPU, 4-byte aligned.
        num_values: n.

    Returns:
        fp32 [n] on the CPU.

    Raises:
        ValueError: If the payload does not hold that many values.
    """
    start = bitmap_bytes(num_values)
    if payload.numel() < start:
        check_length(payload, start)
    bits = np.unpackbits(payload[:start].numpy(), count=num_values)
    mask = torch.from_numpy(bits).bool()
    check_length(payload, start + 4 * int(mask.sum()))
    flat = torch.zeros(num_values)
    flat[mask] = payload[start:].view(torch.float32)
    return flat


def check_length(payload: Tensor, expected: int) -> None:
    """Raise unless a payload has a number of bytes.

    Raises:
        ValueError: If it has another.
    """
    if payload.numel() != expected:
        raise ValueError(f"payload: expected {expected} bytes, got {payload.numel()} bytes")

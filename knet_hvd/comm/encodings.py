"""How the values of a tensor are written into a frame.

| encoding      | bytes for n values, k of them not zero | lossless |
|---------------|----------------------------------------|----------|
| `fp32`        | 4n                                     | yes      |
| `bf16`        | 2n                                     | no       |
| `relu-sparse` | n/8 + 4k, at most 4n                   | yes      |

`relu-sparse` leaves the zeros of a ReLU out: one bit a value says whether it is zero,
and the other values follow. A tensor with so few zeros that this would be longer
crosses as fp32. (A negative zero arrives as zero.)
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from knet_hvd.comm.encoding_names import ENCODINGS, Encoding


def max_payload_bytes(num_values: int, encoding: Encoding) -> int:
    """Return the most bytes that a tensor may need.

    Args:
        num_values: Values of the tensor.
        encoding: How it is to be sent.

    Returns:
        The bytes of a buffer that every such tensor fits in.

    Raises:
        ValueError: If there is no such encoding.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding: expected one of {ENCODINGS}, got {encoding!r}")
    return num_values * (2 if encoding == "bf16" else 4)


def may_carry(agreed: Encoding, actual: Encoding) -> bool:
    """Return whether a frame of a link may be in an encoding: see ``encode``."""
    return actual == agreed or (agreed == "relu-sparse" and actual == "fp32")


def encode(tensor: Tensor, encoding: Encoding, out: Tensor) -> tuple[Encoding, int]:
    """Write the values of a tensor.

    Images cross in the order of `torch.channels_last`, in which convolutions make
    them, so that they need not be transposed.

    Args:
        tensor: fp32 of any shape, on any device.
        encoding: How to write the values.
        out: uint8 [`max_payload_bytes` or more] on the CPU, 4-byte aligned.

    Returns:
        The encoding that was taken, and the number of bytes written.

    Raises:
        TypeError: If the tensor is not fp32.
    """
    if tensor.dtype != torch.float32:
        raise TypeError(f"tensor: expected torch.float32, got {tensor.dtype}")
    flat = _wire_order(tensor.detach())
    if encoding == "relu-sparse":
        num_bytes = _encode_sparse(flat.reshape(-1).cpu(), out)
        if num_bytes is not None:
            return encoding, num_bytes
        encoding = "fp32"
    dtype = torch.bfloat16 if encoding == "bf16" else torch.float32
    num_bytes = tensor.numel() * dtype.itemsize
    out[:num_bytes].view(dtype).view(flat.shape).copy_(flat)
    return encoding, num_bytes


def decode(payload: Tensor, encoding: Encoding, shape: Sequence[int]) -> Tensor:
    """Return the tensor that `encode` wrote, in memory of its own.

    Args:
        payload: uint8 [bytes written], 4-byte aligned.
        encoding: What `encode` returned.
        shape: The tensor's shape.

    Returns:
        fp32 [shape] on the CPU, images in `torch.channels_last`.

    Raises:
        ValueError: If the payload does not hold that many values.
    """
    images = len(shape) == 4
    layout = torch.channels_last if images else torch.contiguous_format
    tensor = torch.empty(*shape, memory_format=layout)
    flat = _wire_order(tensor)
    if encoding == "relu-sparse":
        flat.view(-1).copy_(_decode_sparse(payload, tensor.numel()))
        return tensor
    dtype = torch.bfloat16 if encoding == "bf16" else torch.float32
    _check_length(payload, tensor.numel() * dtype.itemsize)
    flat.copy_(payload.view(dtype).view(flat.shape))
    return tensor


def _wire_order(tensor: Tensor) -> Tensor:
    """View the tensor in the order in which its values cross."""
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor


def _bitmap_bytes(num_values: int) -> int:
    """Return the bytes of the bitmap, padded so that values after it are aligned."""
    return (num_values + 31) // 32 * 4


def _encode_sparse(flat: Tensor, out: Tensor) -> int | None:
    """Write bitmap and values; return the bytes, or None if fp32 is shorter."""
    mask = flat != 0
    values = flat[mask]
    start = _bitmap_bytes(flat.numel())
    end = start + 4 * values.numel()
    if end >= 4 * flat.numel():
        return None
    bits = np.packbits(mask.numpy())
    out[: len(bits)] = torch.from_numpy(bits)
    out[len(bits) : start] = 0
    out[start:end].view(torch.float32).copy_(values)
    return end


def _decode_sparse(payload: Tensor, num_values: int) -> Tensor:
    start = _bitmap_bytes(num_values)
    if payload.numel() < start:
        _check_length(payload, start)
    bits = np.unpackbits(payload[:start].numpy(), count=num_values)
    mask = torch.from_numpy(bits).bool()
    _check_length(payload, start + 4 * int(mask.sum()))
    flat = torch.zeros(num_values)
    flat[mask] = payload[start:].view(torch.float32)
    return flat


def _check_length(payload: Tensor, expected: int) -> None:
    if payload.numel() != expected:
        raise ValueError(f"payload: expected {expected} bytes, got {payload.numel()} bytes")

"""How the values of a tensor are written into a frame.

| encoding      | of           | bytes for n values, k of them not zero | lossless |
|---------------|--------------|----------------------------------------|----------|
| `fp32`        | float32      | 4n                                     | yes      |
| `bf16`        | float32      | 2n                                     | no       |
| `relu-sparse` | float32      | n/8 + 4k, at most 4n                   | yes      |
| `raw`         | any `DTYPES` | n times the bytes of a value           | yes      |

`relu-sparse` leaves the zeros of a ReLU out: one bit a value says whether it is zero,
and the other values follow. A tensor with so few zeros that this would be longer
crosses as fp32. (A negative zero arrives as zero.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd.comm.encoding_names import ENCODINGS, Encoding
from knet_hvd.comm.links import relu_sparse
from knet_hvd.comm.links.relu_sparse import check_length
from knet_hvd.devices import CPU

DTYPES = (
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
"""The dtypes that can cross; a header names one by its place here."""


def check_dtype(dtype: torch.dtype, encoding: Encoding) -> None:
    """Raise unless tensors of a dtype can be written in an encoding.

    Raises:
        TypeError: If they cannot.
        ValueError: If there is no such encoding.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"encoding: expected one of {ENCODINGS}, got {encoding!r}")
    if encoding == "raw" and dtype not in DTYPES:
        names = ", ".join(map(str, DTYPES))
        raise TypeError(f"tensor: expected one of {names}, got {dtype}")
    if encoding != "raw" and dtype != torch.float32:
        raise TypeError(f"tensor: expected torch.float32 for {encoding}, got {dtype}: take raw")


def max_payload_bytes(
    num_values: int, encoding: Encoding, dtype: torch.dtype = torch.float32
) -> int:
    """Return the most bytes that a tensor may need.

    Args:
        num_values: Values of the tensor.
        encoding: How it is to be sent.
        dtype: Of the tensor.

    Returns:
        The bytes of a buffer that every such tensor fits in.

    Raises:
        TypeError: If the encoding is not for this dtype.
        ValueError: If there is no such encoding.
    """
    check_dtype(dtype, encoding)
    return num_values * _wire_dtype(encoding, dtype).itemsize


def may_hold(payload_bytes: int, num_values: int, encoding: Encoding, dtype: torch.dtype) -> bool:
    """Return whether a payload of some length can be that of so many values."""
    if encoding == "relu-sparse":
        return relu_sparse.bitmap_bytes(num_values) <= payload_bytes < max(4 * num_values, 1)
    return payload_bytes == num_values * _wire_dtype(encoding, dtype).itemsize


def may_carry(agreed: Encoding, actual: Encoding) -> bool:
    """Return whether a frame of a link may be in an encoding: see ``encode``."""
    return actual == agreed or (agreed == "relu-sparse" and actual == "fp32")


def encode(tensor: Tensor, encoding: Encoding, out: Tensor) -> tuple[Encoding, int]:
    """Write the values of a tensor.

    Images cross in the order of `torch.channels_last`, in which convolutions make
    them, so that they need not be transposed.

    Args:
        tensor: Of any shape and strides, on any device.
        encoding: How to write the values.
        out: uint8 [`max_payload_bytes` or more] on the CPU, 8-byte aligned.

    Returns:
        The encoding that was taken, and the number of bytes written.

    Raises:
        TypeError: If the encoding is not for the tensor's dtype.
    """
    check_dtype(tensor.dtype, encoding)
    flat = _wire_order(tensor.detach())
    if encoding == "relu-sparse":
        num_bytes = relu_sparse.encode(flat.reshape(-1).cpu(), out)
        if num_bytes is not None:
            return encoding, num_bytes
        encoding = "fp32"
    dtype = _wire_dtype(encoding, tensor.dtype)
    num_bytes = tensor.numel() * dtype.itemsize
    out[:num_bytes].view(dtype).view(flat.shape).copy_(flat)
    return encoding, num_bytes


def decode(
    payload: Tensor,
    encoding: Encoding,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: torch.device = CPU,
) -> Tensor:
    """Return the tensor that `encode` wrote, in memory of its own.

    Args:
        payload: uint8 [bytes written], 8-byte aligned.
        encoding: What `encode` returned.
        shape: The tensor's shape.
        dtype: The tensor's dtype.
        device: Where it is wanted.

    Returns:
        [shape] on the device, images in `torch.channels_last`.

    Raises:
        ValueError: If the payload does not hold that many values.
    """
    images = len(shape) == 4
    layout = torch.channels_last if images else torch.contiguous_format
    tensor = torch.empty(tuple(shape), dtype=dtype, memory_format=layout, device=device)
    flat = _wire_order(tensor)
    if encoding == "relu-sparse":
        flat.view(-1).copy_(relu_sparse.decode(payload, tensor.numel()))
        return tensor
    wire_dtype = _wire_dtype(encoding, dtype)
    check_length(payload, tensor.numel() * wire_dtype.itemsize)
    flat.copy_(payload.view(wire_dtype).view(flat.shape))
    return tensor


def _wire_dtype(encoding: Encoding, dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the values in a payload without a bitmap."""
    if encoding == "bf16":
        return torch.bfloat16
    # Bytes from elsewhere need not be 0 or 1, and torch trusts a bool to be one of them.
    return torch.uint8 if dtype == torch.bool else dtype


def _wire_order(tensor: Tensor) -> Tensor:
    """View the tensor in the order in which its values cross."""
    return tensor.permute(0, 2, 3, 1) if tensor.dim() == 4 else tensor

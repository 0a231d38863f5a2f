"""Checks of single tensors that the ops are given."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from knet_hvd.ops.layout import GROUP_VALUES

_VALUE_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MAX_VALUES = 2**35  # 32-bit Philox counters of 8 values each


def check_value(condition: bool | torch.SymBool, message: Callable[[], str]) -> None:
    """Raise unless a condition holds, which depends on symbols where a graph is exported.

    Raises:
        ValueError: With the message.
    """
    if condition is not True:  # PyTorch's check takes 0.3 s when it is first called
        torch._check_value(condition, message)


def _is_gradient(tensor: Tensor, device: torch.device) -> bool:
    """Return whether ``_check_gradient`` finds nothing, on this device; 5 times faster."""
    return (
        tensor.dtype in _VALUE_DTYPES
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and tensor.numel() < _MAX_VALUES
        and tensor.device == device
    )


def _check_gradient(values: Tensor, what: str) -> None:
    check_value(
        values.dtype in _VALUE_DTYPES,
        lambda: f"{what}: expected fp32, fp64, fp16 or bf16, got {values.dtype}",
    )
    check_value(
        values.layout is torch.strided and values.is_contiguous(),
        lambda: (
            f"{what}: expected a contiguous dense tensor, got {values.layout}, "
            f"strides {tuple(values.stride())}"
        ),
    )
    check_value(
        values.numel() < _MAX_VALUES,
        lambda: f"{what}: expected fewer than 2^35 values, got {values.numel()}",
    )


def check_gradients(tensors: Sequence[Tensor], what: str) -> None:
    """Check that there are gradients: contiguous, floating point, all on one device.

    Raises:
        ValueError: If there is none, or one is not of that kind.
    """
    check_value(len(tensors) > 0, lambda: f"{what}: expected one tensor or more, got none")
    device = tensors[0].device
    for number, tensor in enumerate(tensors):
        if not _is_gradient(tensor, device):
            _check_gradient(tensor, f"{what}[{number}]")
            check_device(tensor, f"{what}[{number}]", tensors[0])


def check_tensor(tensor: Tensor, what: str, dtype: torch.dtype, numel: int, like: Tensor) -> None:
    """Check a tensor's dtype, size and layout, and that it is where ``like`` is."""
    check_value(
        tensor.dtype == dtype and tensor.is_contiguous() and tensor.numel() == numel,
        lambda: (
            f"{what}: expected {numel} contiguous values of {dtype}, got "
            f"{tensor.numel()} of {tensor.dtype}, strides {tuple(tensor.stride())}"
        ),
    )
    check_device(tensor, what, like)


def check_device(tensor: Tensor, what: str, like: Tensor) -> None:
    """Check that a tensor is where ``like`` is."""
    check_value(
        tensor.device == like.device,
        lambda: f"{what}: expected a tensor on {like.device}, got {tensor.device}",
    )


def check_payloads(payloads: Tensor, num_bytes: int) -> None:
    """Check payloads of ``num_bytes`` bytes each, or more."""
    check_value(
        payloads.dtype == torch.uint8 and payloads.dim() == 2,
        lambda: (
            f"payloads: expected uint8 [num_payloads, {num_bytes}], got "
            f"{payloads.dtype} {tuple(payloads.shape)}"
        ),
    )
    check_value(
        payloads.size(1) >= num_bytes and (num_bytes == 0 or payloads.stride(1) == 1),
        lambda: (
            f"payloads: expected rows of at least {num_bytes} contiguous bytes, got "
            f"{tuple(payloads.shape)}, strides {tuple(payloads.stride())}"
        ),
    )
    check_value(
        0 < payloads.size(0) <= 512,
        lambda: f"payloads: expected 1 to 512 payloads, got {payloads.size(0)}",
    )


def is_place(first_value: int, numel: int) -> bool:
    """Return whether values that are encoded may begin here in their tensor."""
    return (
        first_value >= 0 and first_value % GROUP_VALUES == 0 and first_value + numel < _MAX_VALUES
    )

"""Checks of the ops' arguments: one message for eager mode, fake tensors and export."""

import torch
from torch import Tensor

from knet_hvd.ops.layout import (
    GROUP_VALUES,
    LEVEL_WORDS,
    WIRE_FORMATS,
    num_scale_groups,
    num_words,
    payload_bytes,
)

_VALUE_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_MAX_VALUES = 2**35  # 32-bit Philox counters of 8 values each


def are_values(tensor: Tensor, device: torch.device) -> bool:
    """Return whether ``check_values`` finds nothing, on this device; 5 times faster."""
    return (
        tensor.dtype in _VALUE_DTYPES
        and tensor.layout is torch.strided
        and tensor.is_contiguous()
        and tensor.numel() < _MAX_VALUES
        and tensor.device == device
    )


def check_values(values: Tensor, what: str = "values") -> None:
    """Check that a tensor [any shape] is a contiguous floating-point one.

    Raises:
        RuntimeError: If its dtype, layout or size is not supported.
    """
    torch._check(
        values.dtype in _VALUE_DTYPES,
        lambda: f"{what}: expected fp32, fp64, fp16 or bf16, got {values.dtype}",
    )
    torch._check(
        values.layout is torch.strided and values.is_contiguous(),
        lambda: (
            f"{what}: expected a contiguous dense tensor, got {values.layout}, "
            f"strides {tuple(values.stride())}"
        ),
    )
    torch._check(
        values.numel() < _MAX_VALUES,
        lambda: f"{what}: expected fewer than 2^35 values, got {values.numel()}",
    )


def check_scale_group_size(scale_group_size: int) -> None:
    """Check the number of values a scale is for."""
    torch._check(
        scale_group_size >= 0 and scale_group_size % GROUP_VALUES == 0,
        lambda: (
            f"scale_group_size: expected 0 (one bucket) or a multiple of "
            f"{GROUP_VALUES}, got {scale_group_size}"
        ),
    )


def check_tensor(tensor: Tensor, what: str, dtype: torch.dtype, numel: int, like: Tensor) -> None:
    """Check a tensor's dtype, size and layout, and that it is where ``like`` is."""
    torch._check(
        tensor.dtype == dtype and tensor.is_contiguous() and tensor.numel() == numel,
        lambda: (
            f"{what}: expected {numel} contiguous values of {dtype}, got "
            f"{tensor.numel()} of {tensor.dtype}, strides {tuple(tensor.stride())}"
        ),
    )
    check_device(tensor, what, like)


def check_device(tensor: Tensor, what: str, like: Tensor) -> None:
    """Check that a tensor is where ``like`` is."""
    torch._check(
        tensor.device == like.device,
        lambda: f"{what}: expected a tensor on {like.device}, got {tensor.device}",
    )


def check_format(wire_format: int) -> None:
    """Check the number of a wire format."""
    torch._check(
        0 <= wire_format < len(WIRE_FORMATS),
        lambda: f"wire_format: expected 0 to {len(WIRE_FORMATS) - 1}, got {wire_format}",
    )


def check_payloads(payloads: Tensor, wire_format: int, numel: int) -> None:
    """Check payloads of ``numel`` codes each."""
    check_format(wire_format)
    needed = payload_bytes(numel, WIRE_FORMATS[wire_format])
    torch._check(
        payloads.dtype == torch.uint8 and payloads.dim() == 2,
        lambda: (
            f"payloads: expected uint8 [num_payloads, {needed}], got "
            f"{payloads.dtype} {tuple(payloads.shape)}"
        ),
    )
    torch._check(
        payloads.size(1) >= needed and (needed == 0 or payloads.stride(1) == 1),
        lambda: (
            f"payloads: expected rows of at least {needed} contiguous bytes, got "
            f"{tuple(payloads.shape)}, strides {tuple(payloads.stride())}"
        ),
    )
    torch._check(
        0 < payloads.size(0) <= 512,
        lambda: f"payloads: expected 1 to 512 payloads, got {payloads.size(0)}",
    )


def _check_digits(values: Tensor, base: int, num_digits: int, words: Tensor) -> None:
    torch._check(
        2 <= base <= 1025 and num_digits >= 1 and base**num_digits <= 2**64,
        lambda: (
            f"expected base 2 to 1025 and base**num_digits <= 2**64, got "
            f"base {base}, {num_digits} digits"
        ),
    )
    check_tensor(values, "values", torch.int16, values.numel(), words)
    expected = num_words(values.numel(), num_digits)
    check_tensor(words, f"words [{LEVEL_WORDS} k]", torch.int64, expected, values)


def is_place(first_value: int, numel: int) -> bool:
    """Return whether values that are encoded may begin here in their tensor."""
    return (
        first_value >= 0 and first_value % GROUP_VALUES == 0 and first_value + numel < _MAX_VALUES
    )


def check_place(first_value: int, numel: int) -> None:
    """Check where the values that are encoded begin in their tensor."""
    torch._check(
        is_place(first_value, numel),
        lambda: f"first_value: expected a multiple of {GROUP_VALUES} below 2^35, got {first_value}",
    )


def check_key(key: list[int]) -> None:
    """Check the key of a stream of random numbers."""
    torch._check(
        len(key) == 4 and all(0 <= part < 2**32 for part in key[:3]) and 0 <= key[3] < 2**63,
        lambda: (
            f"key: expected (seed, rank, stream, step), the first three below "
            f"2^32, step below 2^63, got {key}"
        ),
    )


def check_ternarize(
    values: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    key: list[int],
    first_value: int,
    stochastic: bool,
    payload: Tensor,
) -> None:
    """Check the arguments of ``ternarize``."""
    check_values(values)
    check_scale_group_size(scale_group_size)
    check_format(wire_format)
    buckets = num_scale_groups(values.numel(), scale_group_size)
    check_tensor(scales, "scales", torch.float32, buckets, values)
    needed = payload_bytes(values.numel(), WIRE_FORMATS[wire_format])
    check_tensor(payload, "payload", torch.uint8, needed, values)
    check_place(first_value, values.numel())
    check_key(key)


def check_unpack_sum(payloads: Tensor, wire_format: int, sums: Tensor) -> None:
    """Check the arguments of ``unpack_sum``."""
    check_payloads(payloads, wire_format, sums.numel())
    check_tensor(sums, "sums", torch.int16, sums.numel(), payloads)


def check_divisor(divisor: int) -> None:
    """Check what sums are divided by."""
    torch._check(1 <= divisor < 2**31, lambda: f"divisor: expected 1 to 2^31 - 1, got {divisor}")


def check_decode_mean(
    payloads: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    out: Tensor,
) -> None:
    """Check the arguments of ``decode_mean``."""
    check_divisor(divisor)
    check_values(out, "out")
    check_scale_group_size(scale_group_size)
    check_payloads(payloads, wire_format, out.numel())
    buckets = num_scale_groups(out.numel(), scale_group_size)
    check_tensor(scales, "scales", torch.float32, buckets, out)


def check_dequantize(
    sums: Tensor, scales: Tensor, scale_group_size: int, divisor: int, out: Tensor
) -> None:
    """Check the arguments of ``dequantize``."""
    check_divisor(divisor)
    check_values(out, "out")
    check_scale_group_size(scale_group_size)
    check_tensor(sums, "sums", torch.int16, out.numel(), out)
    buckets = num_scale_groups(out.numel(), scale_group_size)
    check_tensor(scales, "scales", torch.float32, buckets, out)


def check_pack_digits(
    values: Tensor, base: int, offset: int, num_digits: int, words: Tensor
) -> None:
    """Check the arguments of ``pack_digits``."""
    _check_digits(values, base, num_digits, words)


def check_unpack_digits(
    words: Tensor, base: int, offset: int, num_digits: int, values: Tensor
) -> None:
    """Check the arguments of ``unpack_digits``."""
    _check_digits(values, base, num_digits, words)


def check_statistics(values: Tensor, scale_group_size: int) -> None:
    """Check the arguments of ``statistics`` and ``max_abs``."""
    check_values(values)
    check_scale_group_size(scale_group_size)

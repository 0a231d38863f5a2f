"""The ops as documented functions, with output tensors made where not given."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from knet_hvd.ops import checks
from knet_hvd.ops.layout import WireFormat, format_index, num_words, payload_bytes
from knet_hvd.ops.native import warn_if_slow

_ops = torch.ops.knet_hvd


def run_check(check: Callable[..., None], *arguments: Any) -> None:
    """Check arguments here, before a kernel sees them; fake kernels do when tracing."""
    if not torch.compiler.is_compiling():
        check(*arguments)


def statistics(values: Tensor, scale_group_size: int = 0) -> Tensor:
    """Sum each bucket of a tensor and its squares, in one pass.

    Args:
        values: Contiguous gradient [any shape], fp32, fp64, fp16 or bf16; fp64 is
            rounded to fp32 first.
        scale_group_size: Values a bucket, a multiple of 128; 0 for one bucket.

    Returns:
        fp64 [num_scale_groups, 2]: sum and sum of squares.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    run_check(checks.check_statistics, values, scale_group_size)
    warn_if_slow(values.device)
    result: Tensor = _ops.statistics(values.detach(), scale_group_size)
    return result


def max_abs(values: Tensor, scale_group_size: int = 0) -> Tensor:
    """Find the largest absolute value of each bucket; NaN where a bucket holds one.

    Arguments and errors are those of ``statistics``.

    Returns:
        fp32 [num_scale_groups].
    """
    run_check(checks.check_statistics, values, scale_group_size)
    result: Tensor = _ops.max_abs(values.detach(), scale_group_size)
    return result


def ternarize(
    values: Tensor,
    scales: Tensor,
    *,
    key: tuple[int, int, int, int],
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
    first_value: int = 0,
    stochastic: bool = True,
    payload: Tensor | None = None,
) -> Tensor:
    """Ternarize and pack a gradient (TernGrad, arXiv 1705.07878, eq. 2 and 3).

    The code of g is sign(g) * b with b ~ Bernoulli(min(1, |g| / scale)), from 16 random
    bits: the probability is off by at most 2^-17, the decoded mean by 2^-17 of the
    scale. Values above the scale always fire. A scale that is zero, below 2^-100 or not
    finite gives zero codes.

    Args:
        values: Contiguous gradient [any shape], fp32, fp64, fp16 or bf16.
        scales: fp32 [num_scale_groups], not negative, on the same device.
        key: (seed, rank, stream of the tensor, step), the first three below 2^32.
        scale_group_size: Values a bucket, a multiple of 128; 0 for one bucket.
        wire_format: ``"trit5"`` (1.6 bits a value) or ``"crumb4"`` (2 bits).
        first_value: Where ``values`` begins in its tensor, a multiple of 128; a tensor
            encoded in parts gives the bytes that it gives at once, if each part is a
            whole number of blocks and of buckets.
        stochastic: False for the nearest code (fires from half the scale on), which
            error feedback needs.
        payload: uint8 [payload_bytes(n, wire_format)] to write to; made if None.

    Returns:
        The payload.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    index = format_index(wire_format)
    if payload is None:
        size = payload_bytes(values.numel(), wire_format)
        payload = values.new_empty(size, dtype=torch.uint8)
    flat, where = values.detach(), (list(key), first_value)
    arguments = (flat, scales, scale_group_size, index, *where, stochastic)
    run_check(checks.check_ternarize, *arguments, payload)
    warn_if_slow(values.device)
    _ops.ternarize(*arguments, payload)
    return payload


def unpack_sum(payloads: Tensor, wire_format: WireFormat, sums: Tensor) -> Tensor:
    """Add the codes of N payloads.

    Args:
        payloads: uint8 [N, bytes], N at most 512; any bytes decode to something.
        wire_format: The payloads' format.
        sums: int16 [any shape], overwritten.

    Returns:
        ``sums``.

    Raises:
        RuntimeError: If a payload is shorter than ``sums`` needs.
    """
    index = format_index(wire_format)
    run_check(checks.check_unpack_sum, payloads, index, sums)
    _ops.unpack_sum(payloads, index, sums)
    return sums


def decode_mean(
    payloads: Tensor,
    scales: Tensor,
    out: Tensor,
    *,
    divisor: int = 1,
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
) -> Tensor:
    """Decode N payloads that share their scales, and average or add them.

    Args:
        payloads: uint8 [N, bytes], N at most 512.
        scales: fp32 [num_scale_groups]; one that is not finite makes its bucket NaN.
        out: Contiguous gradient [any shape], overwritten.
        divisor: N for the mean, 1 for the sum.
        scale_group_size: Values a bucket; 0 for one bucket.
        wire_format: The payloads' format.

    Returns:
        ``out``.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    index = format_index(wire_format)
    arguments = (payloads, scales, scale_group_size, index, divisor, out.detach())
    run_check(checks.check_decode_mean, *arguments)
    _ops.decode_mean(*arguments)
    return out


def dequantize(
    sums: Tensor, scales: Tensor, out: Tensor, *, divisor: int = 1, scale_group_size: int = 0
) -> Tensor:
    """Turn sums of codes into a gradient: sum * scale / divisor.

    Args:
        sums: int16 [n].
        scales: fp32 [num_scale_groups]; one that is not finite makes its bucket NaN.
        out: Contiguous gradient [any shape of n values], overwritten.
        divisor: Number of ranks for the mean, 1 for the sum.
        scale_group_size: Values a bucket; 0 for one bucket.

    Returns:
        ``out``.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    arguments = (sums, scales, scale_group_size, divisor, out.detach())
    run_check(checks.check_dequantize, *arguments)
    _ops.dequantize(*arguments)
    return out


def pack_digits(
    values: Tensor, *, base: int, offset: int, num_digits: int, words: Tensor | None = None
) -> Tensor:
    """Pack small integers as digits of ``base`` into 64-bit words.

    Args:
        values: int16 [n]; every value + offset lies in 0 to base - 1.
        base: 2 to 1025.
        offset: Added to each value.
        num_digits: Digits a word; base**num_digits is at most 2^64.
        words: int64 [num_words(n, num_digits)] to write to; made if None.

    Returns:
        The words.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    if words is None:
        size = num_words(values.numel(), num_digits)
        words = values.new_empty(size, dtype=torch.int64)
    run_check(checks.check_pack_digits, values, base, offset, num_digits, words)
    _ops.pack_digits(values, base, offset, num_digits, words)
    return words


def unpack_digits(
    words: Tensor, values: Tensor, *, base: int, offset: int, num_digits: int
) -> Tensor:
    """Invert ``pack_digits``; any word decodes to digits 0 to base - 1, less offset.

    Args:
        words: int64 [num_words(n, num_digits)].
        values: int16 [n], overwritten.
        base: As packed.
        offset: As packed.
        num_digits: As packed.

    Returns:
        ``values``.

    Raises:
        RuntimeError: If an argument is not of that form.
    """
    run_check(checks.check_unpack_digits, words, base, offset, num_digits, values)
    _ops.unpack_digits(words, base, offset, num_digits, values)
    return values

"""The ops as documented functions, with output tensors made where not given.

One call treats all gradients of a bucket: a GPU takes about a hundred tensors a launch,
and a CPU is spared a call from Python for each. Their sizes, dtypes and alignments may
differ; the bits are those of one call for each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from knet_hvd.ops import checks
from knet_hvd.ops.layout import (
    ScaleRule,
    WireFormat,
    format_index,
    num_words,
    payload_bytes,
    rule_index,
)
from knet_hvd.ops.native import warn_if_slow

_ops = torch.ops.knet_hvd


def _run_check(check: Callable[..., None], *arguments: Any) -> None:
    """Check arguments here, before a kernel sees them; fake kernels do when tracing."""
    if not torch.compiler.is_compiling():
        check(*arguments)


def _detached(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach() if t.requires_grad else t for t in tensors]


def statistics(values: Sequence[Tensor], scale_group_size: int = 0) -> Tensor:
    """Sum each scale group and its squares, in one pass over the gradients.

    Args:
        values: One contiguous gradient [any shape] or more, fp32, fp64, fp16 or bf16, on
            one device; fp64 is rounded to fp32 first.
        scale_group_size: Values that share a scale, a multiple of 128; 0 for one scale a
            tensor.

    Returns:
        fp64 [scale groups of all tensors, 2]: sum and sum of squares.

    Raises:
        ValueError: If an argument is not of that form.
    """
    _run_check(checks.check_statistics, values, scale_group_size)
    warn_if_slow(values[0].device)
    result: Tensor = _ops.statistics(_detached(values), scale_group_size)
    return result


def scales(
    values: Sequence[Tensor],
    scale_group_size: int = 0,
    *,
    rule: ScaleRule = "max",
    clip_factor: float = 1.0,
) -> Tensor:
    """Compute the scale of each scale group, in one pass over the gradients.

    Args:
        values: As for ``statistics``.
        scale_group_size: As for ``statistics``.
        rule: ``"rms"``: clip_factor * root mean square; ``"std"``: clip_factor * the
            population's standard deviation; ``"max"``: the largest absolute value. No
            scale of finite values is infinite: it is at most fp32's largest value.
        clip_factor: Above 0; not used by ``"max"``.

    Returns:
        fp32 [scale groups of all tensors], not negative; +inf where a value is NaN or
        infinite, as fp32, so that a maximum over ranks keeps it (NaN is lost in an MPI
        maximum).

    Raises:
        ValueError: If an argument is not of that form.
    """
    arguments = (scale_group_size, rule_index(rule), clip_factor)
    _run_check(checks.check_scales, values, *arguments)
    warn_if_slow(values[0].device)
    result: Tensor = _ops.scales(_detached(values), *arguments)
    return result


def ternarize(
    values: Sequence[Tensor],
    scales: Tensor,
    payload: Tensor | None = None,
    *,
    key: tuple[int, int, int],
    streams: Sequence[int],
    first_values: Sequence[int] | None = None,
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
    stochastic: bool = True,
) -> Tensor:
    """Ternarize and pack gradients (TernGrad, arXiv 1705.07878, eq. 2 and 3).

    The code of g is sign(g) * b with b ~ Bernoulli(min(1, |g| / scale)), from 16 random
    bits: the probability is off by at most 2^-17, the decoded mean by 2^-17 of the
    scale. Values above the scale always fire. A scale that is zero or not finite gives
    zero codes.

    Args:
        values: One contiguous gradient [any shape] or more, fp32, fp64, fp16 or bf16, on
            one device.
        scales: fp32 [scale groups of all tensors], not negative.
        payload: uint8 [payload_bytes of each tensor, together] to write to; made if None.
        key: (seed, rank, step), seed and rank below 2^32.
        streams: Each tensor's stream of random numbers, below 2^32.
        first_values: Where each of ``values`` begins in its tensor, a multiple of 128; 0
            if None. A tensor encoded in parts gives the bytes that it gives at once, if
            each part is a whole number of blocks and of scale groups.
        scale_group_size: Values that share a scale, a multiple of 128; 0 for one scale a
            tensor.
        wire_format: ``"trit5"`` (1.6 bits a value) or ``"crumb4"`` (2 bits).
        stochastic: False for the nearest code (fires from half the scale on), which
            error feedback needs.

    Returns:
        The payload.

    Raises:
        ValueError: If an argument is not of that form.
    """
    index = format_index(wire_format)
    if payload is None:
        size = sum([payload_bytes(tensor.numel(), wire_format) for tensor in values])
        payload = scales.new_empty(size, dtype=torch.uint8)
    firsts = [0] * len(values) if first_values is None else list(first_values)
    arguments = (scales, scale_group_size, index, list(key), list(streams), firsts, stochastic)
    _run_check(checks.check_ternarize, values, *arguments, payload)
    warn_if_slow(payload.device)
    _ops.ternarize(_detached(values), *arguments, payload)
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
        ValueError: If a payload is shorter than ``sums`` needs.
    """
    index = format_index(wire_format)
    _run_check(checks.check_unpack_sum, payloads, index, sums)
    _ops.unpack_sum(payloads, index, sums)
    return sums


def decode_mean(
    payloads: Tensor,
    scales: Tensor,
    outs: Sequence[Tensor],
    *,
    divisor: int = 1,
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
) -> None:
    """Decode N payloads of gradients that share their scales, and average or add them.

    Args:
        payloads: uint8 [N, payload_bytes of each tensor, together], N at most 512.
        scales: fp32 [scale groups of all tensors]; one that is not finite makes its
            scale group NaN.
        outs: One contiguous gradient [any shape] or more, on one device, overwritten.
        divisor: N for the mean, 1 for the sum.
        scale_group_size: Values that share a scale; 0 for one scale a tensor.
        wire_format: The payloads' format.

    Raises:
        ValueError: If an argument is not of that form.
    """
    arguments = (payloads, scales, scale_group_size, format_index(wire_format), divisor)
    _run_check(checks.check_decode_mean, *arguments, outs)
    _ops.decode_mean(*arguments, _detached(outs))


def dequantize(
    sums: Tensor,
    scales: Tensor,
    outs: Sequence[Tensor],
    *,
    divisor: int = 1,
    scale_group_size: int = 0,
    wire_format: WireFormat = "trit5",
) -> None:
    """Turn sums of codes into gradients: sum * scale / divisor.

    Args:
        sums: int16 [values of all tensors], whole blocks of ``wire_format`` for each but
            the last, which may end with its last value.
        scales: As for ``decode_mean``.
        outs: As for ``decode_mean``.
        divisor: Number of ranks for the mean, 1 for the sum.
        scale_group_size: As for ``decode_mean``.
        wire_format: Of the payloads that were added.

    Raises:
        ValueError: If an argument is not of that form.
    """
    arguments = (sums, scales, scale_group_size, format_index(wire_format), divisor)
    _run_check(checks.check_dequantize, *arguments, outs)
    _ops.dequantize(*arguments, _detached(outs))


def pack_digits(
    values: Tensor, *, base: int, offset: int, num_digits: int, words: Tensor | None = None
) -> Tensor:
    """Pack small integers as digits of ``base`` into 64-bit words.

    Args:
        values: int16 [n]; every value + offset lies in 0 to base - 1.
        base: 2 to 1025.
        offset: Added to each value.
        num_digits: Digits a word, 1 or more; base**num_digits is at most 2^64.
        words: int64 [num_words(n, num_digits)] to write to; made if None.

    Returns:
        The words.

    Raises:
        ValueError: If an argument is not of that form.
    """
    if words is None:
        size = num_words(values.numel(), num_digits)
        words = values.new_empty(size, dtype=torch.int64)
    _run_check(checks.check_pack_digits, values, base, offset, num_digits, words)
    _ops.pack_digits(values, base, offset, num_digits, words)
    return words


def unpack_digits(
    words: Tensor, values: Tensor, *, base: int, offset: int, num_digits: int
) -> Tensor:
    """Invert ``pack_digits``; any word decodes to digits 0 to base - 1, less offset.

    Args:
        words: int64 [num_words(n, num_digits)].
        values: int16 [n], overwritten.

    Returns:
        ``values``.

    Raises:
        ValueError: If an argument is not of that form.
    """
    _run_check(checks.check_unpack_digits, words, base, offset, num_digits, values)
    _ops.unpack_digits(words, base, offset, num_digits, values)
    return values

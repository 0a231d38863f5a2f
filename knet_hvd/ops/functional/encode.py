"""From gradients to statistics, scales and packed codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd.ops import checks
from knet_hvd.ops.functional.calls import detached, run_check
from knet_hvd.ops.layout import ScaleRule, WireFormat, format_index, payload_bytes, rule_index
from knet_hvd.ops.native import warn_if_slow

_ops = torch.ops.knet_hvd


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
    run_check(checks.check_statistics, values, scale_group_size)
    warn_if_slow(values[0].device)
    result: Tensor = _ops.statistics(detached(values), scale_group_size)
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
    run_check(checks.check_scales, values, *arguments)
    warn_if_slow(values[0].device)
    result: Tensor = _ops.scales(detached(values), *arguments)
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
    run_check(checks.check_ternarize, values, *arguments, payload)
    warn_if_slow(payload.device)
    _ops.ternarize(detached(values), *arguments, payload)
    return payload

"""From packed codes, or their sums, to gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd.ops import checks
from knet_hvd.ops.functional.calls import detached, run_check
from knet_hvd.ops.layout import WireFormat, format_index

_ops = torch.ops.knet_hvd


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
    run_check(checks.check_unpack_sum, payloads, index, sums)
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
    run_check(checks.check_decode_mean, *arguments, outs)
    _ops.decode_mean(*arguments, detached(outs))


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
    run_check(checks.check_dequantize, *arguments, outs)
    _ops.dequantize(*arguments, detached(outs))

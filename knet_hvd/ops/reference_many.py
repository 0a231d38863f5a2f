"""PyTorch kernels of the ops on many tensors: ``reference.py`` on each in turn."""

import torch
from torch import Tensor

from knet_hvd.ops import reference
from knet_hvd.ops.checks_many import (
    check_decode_mean_many,
    check_dequantize_many,
    check_ternarize_many,
)
from knet_hvd.ops.layout import WIRE_FORMATS, num_scale_groups, padded_values, payload_bytes
from knet_hvd.ops.schemas import library


def statistics_many(values: list[Tensor], scale_group_size: int) -> Tensor:
    """Return sums and sums of squares [all buckets, 2], fp64."""
    return torch.cat([reference.statistics(tensor, scale_group_size) for tensor in values])


def max_abs_many(values: list[Tensor], scale_group_size: int) -> Tensor:
    """Return the largest absolute values [all buckets], fp32."""
    return torch.cat([reference.max_abs(tensor, scale_group_size) for tensor in values])


def _split_scales(scales: Tensor, tensors: list[Tensor], scale_group_size: int) -> list[Tensor]:
    counts = [num_scale_groups(tensor.numel(), scale_group_size) for tensor in tensors]
    return list(scales.split(counts))


def ternarize_many(
    values: list[Tensor],
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    key: list[int],
    streams: list[int],
    first_values: list[int],
    stochastic: bool,
    payload: Tensor,
) -> None:
    """Write the packed ternary codes of all tensors to payload, uint8."""
    check_ternarize_many(
        values,
        scales,
        scale_group_size,
        wire_format,
        key,
        streams,
        first_values,
        stochastic,
        payload,
    )
    form = WIRE_FORMATS[wire_format]
    payloads = payload.view(-1).split([payload_bytes(t.numel(), form) for t in values])
    own_scales = _split_scales(scales, values, scale_group_size)
    seed, rank, step = key
    for number, tensor in enumerate(values):
        reference.ternarize(
            tensor,
            own_scales[number],
            scale_group_size,
            wire_format,
            [seed, rank, streams[number], step],
            first_values[number],
            stochastic,
            payloads[number],
        )


def decode_mean_many(
    payloads: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: list[Tensor],
) -> None:
    """Write (sum of the payloads' codes) * scale / divisor to each of outs."""
    check_decode_mean_many(payloads, scales, scale_group_size, wire_format, divisor, outs)
    form = WIRE_FORMATS[wire_format]
    sizes = [payload_bytes(out.numel(), form) for out in outs]
    rows = payloads[:, : sum(sizes)].split(sizes, dim=1)
    own_scales = _split_scales(scales, outs, scale_group_size)
    for own, scale, out in zip(rows, own_scales, outs, strict=True):
        reference.decode_mean(own, scale, scale_group_size, wire_format, divisor, out)


def dequantize_many(
    sums: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: list[Tensor],
) -> None:
    """Write each tensor's sums, int16, times scale / divisor to each of outs."""
    check_dequantize_many(sums, scales, scale_group_size, wire_format, divisor, outs)
    form = WIRE_FORMATS[wire_format]
    parts = sums.view(-1).split([padded_values(out.numel(), form) for out in outs])
    own_scales = _split_scales(scales, outs, scale_group_size)
    for part, scale, out in zip(parts, own_scales, outs, strict=True):
        own = part[: out.numel()]
        reference.dequantize(own, scale, scale_group_size, divisor, out)


for _kernel in (statistics_many, max_abs_many, ternarize_many, decode_mean_many, dequantize_many):
    library.impl(_kernel.__name__, _kernel, "CompositeExplicitAutograd")

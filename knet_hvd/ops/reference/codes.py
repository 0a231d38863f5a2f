"""PyTorch kernels of ``ternarize``, ``unpack_sum``, ``decode_mean`` and ``dequantize``."""

import torch
from torch import Tensor

from knet_hvd.ops.checks import (
    check_decode_mean,
    check_dequantize,
    check_ternarize,
    check_unpack_sum,
)
from knet_hvd.ops.layout import (
    BLOCK_BYTES,
    GROUP_VALUES,
    WIRE_FORMATS,
    WireFormat,
    ceil_div,
    num_planes,
    num_scale_groups,
    padded_values,
    payload_bytes,
    radix,
)
from knet_hvd.ops.philox import random16
from knet_hvd.ops.reference.padding import padded

_SMALL_SCALE, _BOOST = 2.0**-100, 2.0**100
_RANDOM_RANGE = 65536.0
_NEAREST_THRESHOLD = 32767


def _per_value(scales: Tensor, scale_group_size: int, numel: int) -> Tensor:
    """Repeat scales [num_scale_groups] over the values [numel] of their scale groups."""
    if not scale_group_size:
        return scales.expand(numel)
    return scales.repeat_interleave(scale_group_size)[:numel]


def codes_of(
    values: Tensor,
    scales: Tensor,
    scale_group_size: int,
    key: tuple[int, int, int, int],
    first_value: int,
    stochastic: bool,
) -> Tensor:
    """Return the ternary codes [n], int8, of values [any shape]; see ``ternarize``.

    Args:
        key: (seed, rank, stream of the tensor, step).
    """
    flat = values.reshape(-1).to(torch.float32)
    usable = (scales > 0) & torch.isfinite(scales)
    boost = torch.where((scales > 0) & (scales < _SMALL_SCALE), _BOOST, 1.0)
    inverse = torch.where(usable, _RANDOM_RANGE / (scales * boost), torch.zeros_like(scales))
    scaled = flat.abs() * _per_value(boost, scale_group_size, flat.numel())
    scaled = scaled * _per_value(inverse, scale_group_size, flat.numel())
    cap = torch.full_like(scaled, _RANDOM_RANGE)
    thresholds = torch.where(scaled < cap, scaled, cap).round().to(torch.int32)
    if stochastic:
        random = random16(flat.numel(), key, first_value, flat.device)
    else:
        random = torch.full_like(thresholds, _NEAREST_THRESHOLD)
    fires = (random < thresholds).to(torch.int8)
    return torch.where(torch.signbit(values.reshape(-1)), -fires, fires)


def _pack(codes: Tensor, wire_format: WireFormat) -> Tensor:
    """Pack codes [n], int8, into bytes [num_blocks * BLOCK_BYTES], uint8."""
    planes = num_planes(wire_format)
    blocks = ceil_div(codes.numel(), planes * GROUP_VALUES)
    digits = padded(codes, blocks * planes * GROUP_VALUES).to(torch.int32) + 1
    digits = digits.view(blocks, planes, GROUP_VALUES)
    weights = [radix(wire_format) ** plane for plane in range(planes)]
    weight = torch.tensor(weights, dtype=torch.int32, device=codes.device)
    return (digits * weight.view(1, planes, 1)).sum(1).to(torch.uint8).view(-1)


def _split_scales(scales: Tensor, tensors: list[Tensor], scale_group_size: int) -> list[Tensor]:
    counts = [num_scale_groups(tensor.numel(), scale_group_size) for tensor in tensors]
    return list(scales.split(counts))


def ternarize(
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
    check_ternarize(
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
        codes = codes_of(
            tensor,
            own_scales[number],
            scale_group_size,
            (seed, rank, streams[number], step),
            first_values[number],
            stochastic,
        )
        payloads[number].copy_(_pack(codes, form))


def _unpacked_sum(payloads: Tensor, wire_format: WireFormat, numel: int) -> Tensor:
    """Return the sums [numel], int16, of the codes in payloads [N, bytes]."""
    planes, base = num_planes(wire_format), radix(wire_format)
    blocks = ceil_div(numel, planes * GROUP_VALUES)
    rest = payloads[:, : blocks * BLOCK_BYTES].to(torch.int16)
    rest = rest.clamp(max=base**planes - 1)
    digits = torch.stack(
        [(rest // base**plane % base).clamp(max=2) for plane in range(planes)], dim=2
    )
    sums = (digits - 1).sum(0, dtype=torch.int16)  # [blocks * BLOCK_BYTES, planes]
    sums = sums.view(blocks, BLOCK_BYTES, planes).transpose(1, 2)
    return sums.reshape(-1)[:numel]


def unpack_sum(payloads: Tensor, wire_format: int, sums: Tensor) -> None:
    """Write the sums of the codes in payloads [N, bytes] to sums [any shape], int16."""
    check_unpack_sum(payloads, wire_format, sums)
    total = _unpacked_sum(payloads, WIRE_FORMATS[wire_format], sums.numel())
    sums.copy_(total.view_as(sums))


def _dequantized(sums: Tensor, scales: Tensor, scale_group_size: int, divisor: int) -> Tensor:
    """Return fp32 [n]: sums [n] times scale / divisor; NaN in scale groups without one."""
    divisors = torch.full_like(scales, float(divisor))  # a scalar would be inverted
    factor = torch.where(scales > 0, scales / divisors, 0.0)
    factor = torch.where(torch.isfinite(scales), factor, torch.nan)
    factors = _per_value(factor, scale_group_size, sums.numel())
    value = sums.to(torch.float32) * factors
    return torch.where(torch.isnan(factors), torch.nan, value)


def decode_mean(
    payloads: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: list[Tensor],
) -> None:
    """Write (sum of the payloads' codes) * scale / divisor to each of outs."""
    check_decode_mean(payloads, scales, scale_group_size, wire_format, divisor, outs)
    form = WIRE_FORMATS[wire_format]
    sizes = [payload_bytes(out.numel(), form) for out in outs]
    rows = payloads[:, : sum(sizes)].split(sizes, dim=1)
    own_scales = _split_scales(scales, outs, scale_group_size)
    for own, scale, out in zip(rows, own_scales, outs, strict=True):
        sums = _unpacked_sum(own, form, out.numel())
        out.copy_(_dequantized(sums, scale, scale_group_size, divisor).view_as(out))


def dequantize(
    sums: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: list[Tensor],
) -> None:
    """Write each tensor's sums, int16, times scale / divisor to each of outs."""
    check_dequantize(sums, scales, scale_group_size, wire_format, divisor, outs)
    form, first, flat = WIRE_FORMATS[wire_format], 0, sums.view(-1)
    own_scales = _split_scales(scales, outs, scale_group_size)
    for scale, out in zip(own_scales, outs, strict=True):
        own = flat[first : first + out.numel()]
        out.copy_(_dequantized(own, scale, scale_group_size, divisor).view_as(out))
        first += padded_values(out.numel(), form)

"""PyTorch kernels of every op: the specification, and the fallback on any device.

They favour plain tensor operations over speed. What they return is what the C++ and
CUDA kernels return, bit for bit; ``tests/single`` holds them to that.
"""

import torch
from torch import Tensor

from knet_hvd.ops.checks import (
    check_decode_mean,
    check_dequantize,
    check_pack_digits,
    check_ternarize,
    check_unpack_digits,
    check_unpack_sum,
)
from knet_hvd.ops.layout import (
    BLOCK_BYTES,
    GROUP_VALUES,
    LEVEL_WORDS,
    WIRE_FORMATS,
    WireFormat,
    ceil_div,
    num_planes,
    num_scale_groups,
    radix,
)
from knet_hvd.ops.philox import random16
from knet_hvd.ops.schemas import library

_MIN_SCALE = 2.0**-100
_RANDOM_RANGE = 65536.0
_NEAREST_THRESHOLD = 32767
_STAT_LANES, _STAT_CHUNK, _FINAL_LANES = 32, 4096, 1024


def _padded(flat: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(flat, (0, length - flat.numel()))


def _in_buckets(values: Tensor, scale_group_size: int, multiple: int) -> Tensor:
    """Return values [n] as fp32 [num_scale_groups, k * multiple], padded with zeros."""
    flat = values.reshape(-1).to(torch.float32)
    size = scale_group_size or max(1, flat.numel())
    rows = num_scale_groups(flat.numel(), scale_group_size)
    table = _padded(flat, rows * size).view(rows, size)
    width = ceil_div(min(size, max(1, flat.numel())), multiple) * multiple
    if width <= size:
        return table[:, :width]
    return torch.nn.functional.pad(table, (0, width - size))


def _tree_sum(lanes: Tensor) -> Tensor:
    """Sum the last dimension, a power of two long, by halving."""
    while lanes.size(-1) > 1:
        half = lanes.size(-1) // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]


def _row_sum(rows: Tensor) -> Tensor:
    """Sum dimension -2 in order, keeping the lanes of dimension -1."""
    total = torch.zeros_like(rows[..., 0, :])
    for row in rows.unbind(-2):
        total = total + row
    return total


def statistics(values: Tensor, scale_group_size: int) -> Tensor:
    """Return sum and sum of squares [num_scale_groups, 2], fp64, of values [any shape].

    The order of additions is part of the definition: 32 lanes over a chunk of 4096
    values, 1024 lanes over chunks, lanes by halving.
    """
    table = _in_buckets(values, scale_group_size, _STAT_CHUNK).to(torch.float64)
    chunks = table.view(table.size(0), -1, _STAT_CHUNK // _STAT_LANES, _STAT_LANES)
    moments = torch.stack([chunks, chunks * chunks], dim=-3)
    partial = _tree_sum(_row_sum(moments)).transpose(1, 2)  # [buckets, 2, chunks]
    missing = -partial.size(-1) % _FINAL_LANES
    lanes = torch.nn.functional.pad(partial, (0, missing))
    lanes = lanes.view(partial.size(0), 2, -1, _FINAL_LANES)
    return _tree_sum(_row_sum(lanes))


def max_abs(values: Tensor, scale_group_size: int) -> Tensor:
    """Return the largest absolute value [num_scale_groups], fp32; NaN where there is one."""
    table = _in_buckets(values, scale_group_size, 1).contiguous().abs()
    return table.view(torch.int32).amax(dim=1).view(torch.float32)


def _per_value(scales: Tensor, scale_group_size: int, numel: int) -> Tensor:
    """Repeat scales [num_scale_groups] over the values [numel] of their buckets."""
    if not scale_group_size:
        return scales.expand(numel)
    return scales.repeat_interleave(scale_group_size)[:numel]


def codes_of(
    values: Tensor,
    scales: Tensor,
    scale_group_size: int,
    key: list[int],
    first_value: int,
    stochastic: bool,
) -> Tensor:
    """Return the ternary codes [n], int8, of values [any shape]; see ``ternarize``."""
    flat = values.reshape(-1).to(torch.float32)
    usable = (scales >= _MIN_SCALE) & torch.isfinite(scales)
    inverse = torch.where(usable, _RANDOM_RANGE / scales, torch.zeros_like(scales))
    scaled = flat.abs() * _per_value(inverse, scale_group_size, flat.numel())
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
    digits = _padded(codes, blocks * planes * GROUP_VALUES).to(torch.int32) + 1
    digits = digits.view(blocks, planes, GROUP_VALUES)
    weights = [radix(wire_format) ** plane for plane in range(planes)]
    weight = torch.tensor(weights, dtype=torch.int32, device=codes.device)
    return (digits * weight.view(1, planes, 1)).sum(1).to(torch.uint8).view(-1)


def ternarize(
    values: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    key: list[int],
    first_value: int,
    stochastic: bool,
    payload: Tensor,
) -> None:
    """Write the packed ternary codes of values [any shape] to payload, uint8."""
    check_ternarize(
        values, scales, scale_group_size, wire_format, key, first_value, stochastic, payload
    )
    codes = codes_of(values, scales, scale_group_size, key, first_value, stochastic)
    payload.copy_(_pack(codes, WIRE_FORMATS[wire_format]).view_as(payload))


def _unpacked_sum(payloads: Tensor, wire_format: WireFormat, numel: int) -> Tensor:
    """Return the sums [numel], int16, of the codes in payloads [N, bytes]."""
    planes, base = num_planes(wire_format), radix(wire_format)
    blocks = ceil_div(numel, planes * GROUP_VALUES)
    rest = payloads[:, : blocks * BLOCK_BYTES].to(torch.int16)
    rest = rest.clamp(max=242) if wire_format == "trit5" else rest
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
    """Return fp32 [n]: sums [n] times scale / divisor; NaN in buckets without one."""
    divisors = torch.full_like(scales, float(divisor))  # a scalar would be inverted
    factor = torch.where(scales >= _MIN_SCALE, scales / divisors, 0.0)
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
    out: Tensor,
) -> None:
    """Write (sum of the payloads' codes) * scale / divisor to out [any shape]."""
    check_decode_mean(payloads, scales, scale_group_size, wire_format, divisor, out)
    sums = _unpacked_sum(payloads, WIRE_FORMATS[wire_format], out.numel())
    out.copy_(_dequantized(sums, scales, scale_group_size, divisor).view_as(out))


def dequantize(
    sums: Tensor, scales: Tensor, scale_group_size: int, divisor: int, out: Tensor
) -> None:
    """Write sums [any shape], int16, times scale / divisor to out [same]."""
    check_dequantize(sums, scales, scale_group_size, divisor, out)
    value = _dequantized(sums.reshape(-1), scales, scale_group_size, divisor)
    out.copy_(value.view_as(out))


def pack_digits(values: Tensor, base: int, offset: int, num_digits: int, words: Tensor) -> None:
    """Write values + offset, int16, as digits of ``base`` into words, int64."""
    check_pack_digits(values, base, offset, num_digits, words)
    flat = values.reshape(-1).to(torch.int64) + offset
    blocks = words.numel() // LEVEL_WORDS
    digits = _padded(flat, words.numel() * num_digits)
    digits = digits.view(blocks, num_digits, LEVEL_WORDS)
    total = torch.zeros_like(digits[:, 0])
    for digit in reversed(digits.unbind(1)):
        total = total * base + digit  # wraps as unsigned arithmetic does
    words.copy_(total.view_as(words))


def _divide_unsigned(words: Tensor, base: int) -> Tensor:
    """Divide int64 words, read as unsigned, by ``base``."""
    half = (words >> 1) & (2**63 - 1)
    quotient = (half // base) * 2
    rest = words - quotient * base
    return quotient + (rest >= base).to(torch.int64)


def unpack_digits(words: Tensor, base: int, offset: int, num_digits: int, values: Tensor) -> None:
    """Write the digits of ``base`` in words, int64, less offset, to values, int16."""
    check_unpack_digits(words, base, offset, num_digits, values)
    rest = words.reshape(-1, LEVEL_WORDS)
    digits = []
    for _ in range(num_digits):
        quotient = _divide_unsigned(rest, base)
        digits.append(rest - quotient * base - offset)
        rest = quotient
    flat = torch.stack(digits, dim=1).reshape(-1)[: values.numel()]
    values.copy_(flat.view_as(values))


for _kernel in (
    statistics,
    max_abs,
    ternarize,
    unpack_sum,
    decode_mean,
    dequantize,
    pack_digits,
    unpack_digits,
):
    library.impl(_kernel.__name__, _kernel, "CompositeExplicitAutograd")

"""Checks of the arguments of the ops on many tensors, as ``checks.py`` has them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from knet_hvd.ops.checks import (
    are_values,
    check_device,
    check_divisor,
    check_format,
    check_key,
    check_payloads,
    check_place,
    check_scale_group_size,
    check_tensor,
    check_values,
    is_place,
)
from knet_hvd.ops.layout import BLOCK_BYTES, WIRE_FORMATS, block_values, ceil_div, num_scale_groups


def _check_tensors(tensors: Sequence[Tensor], what: str) -> None:
    """Check that there are gradients, all of them on one device."""
    torch._check(len(tensors) > 0, lambda: f"{what}: expected one tensor or more, got none")
    device = tensors[0].device
    for number, tensor in enumerate(tensors):
        if not are_values(tensor, device):
            check_values(tensor, f"{what}[{number}]")
            check_device(tensor, f"{what}[{number}]", tensors[0])


def _check_scales(scales: Tensor, tensors: Sequence[Tensor], scale_group_size: int) -> None:
    counts = [num_scale_groups(tensor.numel(), scale_group_size) for tensor in tensors]
    check_tensor(scales, "scales", torch.float32, sum(counts), tensors[0])


def _check_count(numbers: Sequence[int], what: str, count: int) -> None:
    torch._check(
        len(numbers) == count,
        lambda: f"{what}: expected one for each of {count} tensors, got {len(numbers)}",
    )


def _num_blocks(tensors: Sequence[Tensor], wire_format: int) -> int:
    block = block_values(WIRE_FORMATS[wire_format])
    return sum([ceil_div(tensor.numel(), block) for tensor in tensors])


def check_statistics_many(values: Sequence[Tensor], scale_group_size: int) -> None:
    """Check the arguments of ``statistics_many`` and ``max_abs_many``."""
    _check_tensors(values, "values")
    check_scale_group_size(scale_group_size)


def check_ternarize_many(
    values: Sequence[Tensor],
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    key: Sequence[int],
    streams: Sequence[int],
    first_values: Sequence[int],
    stochastic: bool,
    payload: Tensor,
) -> None:
    """Check the arguments of ``ternarize_many``."""
    check_statistics_many(values, scale_group_size)
    check_format(wire_format)
    _check_scales(scales, values, scale_group_size)
    _check_count(streams, "streams", len(values))
    _check_count(first_values, "first_values", len(values))
    torch._check(len(key) == 3, lambda: f"key: expected (seed, rank, step), got {list(key)}")
    for stream in (min(streams), max(streams)):
        check_key([key[0], key[1], stream, key[2]])
    for tensor, first_value in zip(values, first_values, strict=True):
        if not is_place(first_value, tensor.numel()):
            check_place(first_value, tensor.numel())
    blocks = _num_blocks(values, wire_format)
    check_tensor(payload, "payload", torch.uint8, blocks * BLOCK_BYTES, values[0])


def check_decode_mean_many(
    payloads: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: Sequence[Tensor],
) -> None:
    """Check the arguments of ``decode_mean_many``."""
    _check_outputs(scales, scale_group_size, wire_format, divisor, outs)
    padded = _num_blocks(outs, wire_format) * block_values(WIRE_FORMATS[wire_format])
    check_payloads(payloads, wire_format, padded)


def check_dequantize_many(
    sums: Tensor,
    scales: Tensor,
    scale_group_size: int,
    wire_format: int,
    divisor: int,
    outs: Sequence[Tensor],
) -> None:
    """Check the arguments of ``dequantize_many``."""
    _check_outputs(scales, scale_group_size, wire_format, divisor, outs)
    block = block_values(WIRE_FORMATS[wire_format])
    padded = _num_blocks(outs, wire_format) * block
    check_tensor(sums, f"sums, in blocks of {block}", torch.int16, padded, outs[0])


def _check_outputs(
    scales: Tensor, scale_group_size: int, wire_format: int, divisor: int, outs: Sequence[Tensor]
) -> None:
    check_divisor(divisor)
    _check_tensors(outs, "outs")
    check_scale_group_size(scale_group_size)
    check_format(wire_format)
    _check_scales(scales, outs, scale_group_size)

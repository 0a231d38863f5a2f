"""PyTorch kernels of ``statistics`` and ``scales``."""

import torch
from torch import Tensor

from knet_hvd.ops.layout import SCALE_RULES, ceil_div, num_scale_groups
from knet_hvd.ops.reference.padding import padded

_MAX_SCALE = (2.0 - 2.0**-22) * 2.0**127
_STAT_LANES, _STAT_CHUNK, _FINAL_LANES = 32, 4096, 1024


def _in_scale_groups(values: Tensor, scale_group_size: int, multiple: int) -> Tensor:
    """Return values [n] as fp32 [num_scale_groups, k * multiple], padded with zeros."""
    flat = values.reshape(-1).to(torch.float32)
    size = scale_group_size or max(1, flat.numel())
    rows = num_scale_groups(flat.numel(), scale_group_size)
    table = padded(flat, rows * size).view(rows, size)
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


def _moments(values: Tensor, scale_group_size: int) -> Tensor:
    """Return sum and sum of squares [num_scale_groups, 2], fp64, of values [any shape].

    The order of additions is part of the definition: 32 lanes over a chunk of 4096
    values, 1024 lanes over chunks, lanes by halving.
    """
    table = _in_scale_groups(values, scale_group_size, _STAT_CHUNK).to(torch.float64)
    chunks = table.view(table.size(0), -1, _STAT_CHUNK // _STAT_LANES, _STAT_LANES)
    moments = torch.stack([chunks, chunks * chunks], dim=-3)
    partial = _tree_sum(_row_sum(moments)).transpose(1, 2)  # [scale groups, 2, chunks]
    missing = -partial.size(-1) % _FINAL_LANES
    lanes = torch.nn.functional.pad(partial, (0, missing))
    lanes = lanes.view(partial.size(0), 2, -1, _FINAL_LANES)
    return _tree_sum(_row_sum(lanes))


def statistics(values: list[Tensor], scale_group_size: int) -> Tensor:
    """Return sums and sums of squares [all scale groups, 2], fp64."""
    return torch.cat([_moments(tensor, scale_group_size) for tensor in values])


def _largest(values: Tensor, scale_group_size: int) -> Tensor:
    """Return the largest absolute value [num_scale_groups], fp32; NaN where there is one."""
    table = _in_scale_groups(values, scale_group_size, 1).contiguous().abs()
    return table.view(torch.int32).amax(dim=1).view(torch.float32)


def _scales(values: Tensor, scale_group_size: int, rule: int, clip_factor: float) -> Tensor:
    """Return the scales [num_scale_groups], fp32, of one tensor; not finite as NaN."""
    if SCALE_RULES[rule] == "max":
        return _largest(values, scale_group_size)
    total, square = _moments(values, scale_group_size).unbind(1)
    counts = torch.full_like(total, scale_group_size)
    counts[-1:] = max(1, values.numel() - scale_group_size * (total.numel() - 1))
    mean_square = square / counts
    if SCALE_RULES[rule] == "std":
        mean = total / counts
        mean_square = (mean_square - mean * mean).clamp_min(0.0)
    scale = mean_square.sqrt() * clip_factor
    return torch.where(torch.isfinite(scale), scale.clamp_max(_MAX_SCALE), scale).float()


def scales(values: list[Tensor], scale_group_size: int, rule: int, clip_factor: float) -> Tensor:
    """Return the scales [all scale groups], fp32; +inf where a value is not finite."""
    found = [_scales(tensor, scale_group_size, rule, clip_factor) for tensor in values]
    return torch.cat(found).nan_to_num_(nan=torch.inf, posinf=torch.inf)

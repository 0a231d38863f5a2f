"""Declare every op of the codec: its schema and its fake kernel.

Read this file to learn what the native library can do. The PyTorch kernels in
``reference.py`` define the results; the C++ and CUDA kernels give the same bits.

========================  ==========================================================
``statistics``            sum and sum of squares of each scale group
``scales``                the scale of each scale group, by a scale rule
``ternarize``             values and scales -> packed ternary codes
``unpack_sum``            payloads of N ranks -> sums of their codes
``decode_mean``           payloads of N ranks and scales -> gradients
``dequantize``            sums of codes and scales -> gradients
``pack_digits``           small integers -> digits in 64-bit words (levels codec)
``unpack_digits``         the inverse
========================  ==========================================================

Gradients come as a list. What belongs to each of them (moments, scales, codes, sums)
lies in their order in one tensor, codes and sums in whole blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from knet_hvd.ops import checks
from knet_hvd.ops.layout import num_scale_groups

library = torch.library.Library("knet_hvd", "DEF")
library.define("statistics(Tensor[] values, int scale_group_size) -> Tensor")
library.define(
    "scales(Tensor[] values, int scale_group_size, int rule, float clip_factor) -> Tensor"
)
library.define(
    "ternarize(Tensor[] values, Tensor scales, int scale_group_size, int wire_format, "
    "int[] key, int[] streams, int[] first_values, bool stochastic, Tensor(a!) payload) -> ()"
)
library.define("unpack_sum(Tensor payloads, int wire_format, Tensor(a!) sums) -> ()")
library.define(
    "decode_mean(Tensor payloads, Tensor scales, int scale_group_size, int wire_format, "
    "int divisor, Tensor(a!)[] outs) -> ()"
)
library.define(
    "dequantize(Tensor sums, Tensor scales, int scale_group_size, int wire_format, "
    "int divisor, Tensor(a!)[] outs) -> ()"
)
library.define(
    "pack_digits(Tensor values, int base, int offset, int num_digits, Tensor(a!) words) -> ()"
)
library.define(
    "unpack_digits(Tensor words, int base, int offset, int num_digits, Tensor(a!) values) -> ()"
)


def _count_scales(values: Sequence[Tensor], scale_group_size: int) -> int:
    return sum(num_scale_groups(tensor.numel(), scale_group_size) for tensor in values)


def _fake_statistics(values: Sequence[Tensor], scale_group_size: int) -> Tensor:
    checks.check_statistics(values, scale_group_size)
    shape = (_count_scales(values, scale_group_size), 2)
    return values[0].new_empty(shape, dtype=torch.float64)


def _fake_scales(
    values: Sequence[Tensor], scale_group_size: int, rule: int, clip_factor: float
) -> Tensor:
    checks.check_scales(values, scale_group_size, rule, clip_factor)
    shape = (_count_scales(values, scale_group_size),)
    return values[0].new_empty(shape, dtype=torch.float32)


_FAKES: dict[str, Callable[..., Any]] = {
    "statistics": _fake_statistics,
    "scales": _fake_scales,
    "ternarize": checks.check_ternarize,
    "unpack_sum": checks.check_unpack_sum,
    "decode_mean": checks.check_decode_mean,
    "dequantize": checks.check_dequantize,
    "pack_digits": checks.check_pack_digits,
    "unpack_digits": checks.check_unpack_digits,
}
for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"knet_hvd::{_name}", _fake, lib=library)

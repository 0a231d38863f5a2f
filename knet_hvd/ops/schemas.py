"""Declare every op of the codec: its schema and its fake kernel.

Read this file to learn what the native library can do. The PyTorch kernels in
``reference.py`` define the results; the C++ and CUDA kernels give the same bits.

========================  ==========================================================
``statistics``            sum and sum of squares of each bucket
``max_abs``               largest absolute value of each bucket
``ternarize``             values and scales -> packed ternary codes
``unpack_sum``            payloads of N ranks -> sums of their codes
``decode_mean``           payloads of N ranks and scales -> gradient
``dequantize``            sums of codes and scales -> gradient
``pack_digits``           small integers -> digits in 64-bit words (levels codec)
``unpack_digits``         the inverse
========================  ==========================================================

``statistics_many``, ``max_abs_many``, ``ternarize_many``, ``decode_mean_many`` and
``dequantize_many`` do the same for many tensors at once. What belongs to each tensor
(results, scales, codes, sums) lies in the tensors' order in what they share, codes and
sums in whole blocks.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from knet_hvd.ops import checks, checks_many
from knet_hvd.ops.layout import num_scale_groups

library = torch.library.Library("knet_hvd", "DEF")
library.define("statistics(Tensor values, int scale_group_size) -> Tensor")
library.define("max_abs(Tensor values, int scale_group_size) -> Tensor")
library.define(
    "ternarize(Tensor values, Tensor scales, int scale_group_size, int wire_format, "
    "int[] key, int first_value, bool stochastic, Tensor(a!) payload) -> ()"
)
library.define("unpack_sum(Tensor payloads, int wire_format, Tensor(a!) sums) -> ()")
library.define(
    "decode_mean(Tensor payloads, Tensor scales, int scale_group_size, int wire_format, "
    "int divisor, Tensor(a!) out) -> ()"
)
library.define(
    "dequantize(Tensor sums, Tensor scales, int scale_group_size, int divisor, "
    "Tensor(a!) out) -> ()"
)
library.define(
    "pack_digits(Tensor values, int base, int offset, int num_digits, Tensor(a!) words) -> ()"
)
library.define(
    "unpack_digits(Tensor words, int base, int offset, int num_digits, Tensor(a!) values) -> ()"
)
library.define("statistics_many(Tensor[] values, int scale_group_size) -> Tensor")
library.define("max_abs_many(Tensor[] values, int scale_group_size) -> Tensor")
library.define(
    "ternarize_many(Tensor[] values, Tensor scales, int scale_group_size, int wire_format, "
    "int[] key, int[] streams, int[] first_values, bool stochastic, "
    "Tensor(a!) payload) -> ()"
)
library.define(
    "decode_mean_many(Tensor payloads, Tensor scales, int scale_group_size, "
    "int wire_format, int divisor, Tensor(a!)[] outs) -> ()"
)
library.define(
    "dequantize_many(Tensor sums, Tensor scales, int scale_group_size, int wire_format, "
    "int divisor, Tensor(a!)[] outs) -> ()"
)


def _fake_statistics(values: Tensor, scale_group_size: int) -> Tensor:
    checks.check_statistics(values, scale_group_size)
    shape = (num_scale_groups(values.numel(), scale_group_size), 2)
    return values.new_empty(shape, dtype=torch.float64)


def _fake_max_abs(values: Tensor, scale_group_size: int) -> Tensor:
    checks.check_statistics(values, scale_group_size)
    shape = (num_scale_groups(values.numel(), scale_group_size),)
    return values.new_empty(shape, dtype=torch.float32)


def _all_buckets(values: Sequence[Tensor], scale_group_size: int) -> int:
    checks_many.check_statistics_many(values, scale_group_size)
    return sum(num_scale_groups(tensor.numel(), scale_group_size) for tensor in values)


def _fake_statistics_many(values: Sequence[Tensor], scale_group_size: int) -> Tensor:
    shape = (_all_buckets(values, scale_group_size), 2)
    return values[0].new_empty(shape, dtype=torch.float64)


def _fake_max_abs_many(values: Sequence[Tensor], scale_group_size: int) -> Tensor:
    shape = (_all_buckets(values, scale_group_size),)
    return values[0].new_empty(shape, dtype=torch.float32)


_FAKES: dict[str, Callable[..., Any]] = {
    "statistics": _fake_statistics,
    "max_abs": _fake_max_abs,
    "ternarize": checks.check_ternarize,
    "unpack_sum": checks.check_unpack_sum,
    "decode_mean": checks.check_decode_mean,
    "dequantize": checks.check_dequantize,
    "pack_digits": checks.check_pack_digits,
    "unpack_digits": checks.check_unpack_digits,
    "statistics_many": _fake_statistics_many,
    "max_abs_many": _fake_max_abs_many,
    "ternarize_many": checks_many.check_ternarize_many,
    "decode_mean_many": checks_many.check_decode_mean_many,
    "dequantize_many": checks_many.check_dequantize_many,
}
for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"knet_hvd::{_name}", _fake, lib=library)

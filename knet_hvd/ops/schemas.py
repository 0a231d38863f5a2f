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
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from knet_hvd.ops import checks
from knet_hvd.ops.layout import num_buckets

library = torch.library.Library("knet_hvd", "DEF")
library.define("statistics(Tensor values, int bucket_size) -> Tensor")
library.define("max_abs(Tensor values, int bucket_size) -> Tensor")
library.define(
    "ternarize(Tensor values, Tensor scales, int bucket_size, int wire_format, "
    "int[] key, int first_value, bool stochastic, Tensor(a!) payload) -> ()"
)
library.define("unpack_sum(Tensor payloads, int wire_format, Tensor(a!) sums) -> ()")
library.define(
    "decode_mean(Tensor payloads, Tensor scales, int bucket_size, int wire_format, "
    "int divisor, Tensor(a!) out) -> ()"
)
library.define(
    "dequantize(Tensor sums, Tensor scales, int bucket_size, int divisor, "
    "Tensor(a!) out) -> ()"
)
library.define(
    "pack_digits(Tensor values, int base, int offset, int num_digits, "
    "Tensor(a!) words) -> ()"
)
library.define(
    "unpack_digits(Tensor words, int base, int offset, int num_digits, "
    "Tensor(a!) values) -> ()"
)


def _fake_statistics(values: Tensor, bucket_size: int) -> Tensor:
    checks.check_statistics(values, bucket_size)
    shape = (num_buckets(values.numel(), bucket_size), 2)
    return values.new_empty(shape, dtype=torch.float64)


def _fake_max_abs(values: Tensor, bucket_size: int) -> Tensor:
    checks.check_statistics(values, bucket_size)
    shape = (num_buckets(values.numel(), bucket_size),)
    return values.new_empty(shape, dtype=torch.float32)


_FAKES: dict[str, Callable[..., Any]] = {
    "statistics": _fake_statistics,
    "max_abs": _fake_max_abs,
    "ternarize": checks.check_ternarize,
    "unpack_sum": checks.check_unpack_sum,
    "decode_mean": checks.check_decode_mean,
    "dequantize": checks.check_dequantize,
    "pack_digits": checks.check_pack_digits,
    "unpack_digits": checks.check_unpack_digits,
}
for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"knet_hvd::{_name}", _fake, lib=library)

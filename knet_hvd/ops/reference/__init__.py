"""PyTorch kernels of every op: the specification, and the fallback on any device.

They favor plain tensor operations over speed. What they return is what the C++ and
CUDA kernels return, bit for bit; ``tests/single`` holds them to that.
"""

from knet_hvd.ops.reference.codes import (
    codes_of,
    decode_mean,
    dequantize,
    ternarize,
    unpack_sum,
)
from knet_hvd.ops.reference.digits import pack_digits, unpack_digits
from knet_hvd.ops.reference.moments import scales, statistics
from knet_hvd.ops.schemas import library

__all__ = [
    "codes_of",
    "decode_mean",
    "dequantize",
    "pack_digits",
    "scales",
    "statistics",
    "ternarize",
    "unpack_digits",
    "unpack_sum",
]

for _kernel in (
    statistics,
    scales,
    ternarize,
    unpack_sum,
    decode_mean,
    dequantize,
    pack_digits,
    unpack_digits,
):
    library.impl(_kernel.__name__, _kernel, "CompositeExplicitAutograd")

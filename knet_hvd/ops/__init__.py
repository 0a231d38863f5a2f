"""The codec's kernels as functions on tensors.

Everything here runs on the C++ or CUDA kernels where they were built and on the PyTorch
kernels elsewhere, with the same bits as a result. Nothing is differentiated.
"""

from knet_hvd.ops import reference
from knet_hvd.ops.functional import (
    decode_mean,
    dequantize,
    max_abs,
    pack_digits,
    statistics,
    ternarize,
    unpack_digits,
    unpack_sum,
)
from knet_hvd.ops.layout import (
    BLOCK_BYTES,
    GROUP_VALUES,
    LEVEL_WORDS,
    WIRE_FORMATS,
    WireFormat,
    block_values,
    digits_per_word,
    num_buckets,
    num_words,
    payload_bytes,
)
from knet_hvd.ops.native import backend, is_loaded, warn_if_slow

__all__ = [
    "BLOCK_BYTES",
    "GROUP_VALUES",
    "LEVEL_WORDS",
    "WIRE_FORMATS",
    "WireFormat",
    "backend",
    "block_values",
    "decode_mean",
    "dequantize",
    "digits_per_word",
    "is_loaded",
    "max_abs",
    "num_buckets",
    "num_words",
    "pack_digits",
    "payload_bytes",
    "reference",
    "statistics",
    "ternarize",
    "unpack_digits",
    "unpack_sum",
    "warn_if_slow",
]

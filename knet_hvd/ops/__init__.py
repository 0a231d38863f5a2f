"""The codec's kernels as functions on tensors.

Everything here runs on the C++ or CUDA kernels where they were built and on the PyTorch
kernels elsewhere, with the same bits as a result. Nothing is differentiated.
"""

from typing import TYPE_CHECKING

from knet_hvd.lazy import lazy_names
from knet_hvd.ops.layout import (
    BLOCK_BYTES,
    GROUP_VALUES,
    LEVEL_WORDS,
    SCALE_RULES,
    WIRE_FORMATS,
    ScaleRule,
    WireFormat,
    block_values,
    code_bits,
    digits_per_word,
    num_scale_groups,
    num_words,
    padded_values,
    payload_bytes,
)

if TYPE_CHECKING:
    from knet_hvd.ops import reference
    from knet_hvd.ops.functional.decode import decode_mean, dequantize, unpack_sum
    from knet_hvd.ops.functional.digits import pack_digits, unpack_digits
    from knet_hvd.ops.functional.encode import scales, statistics, ternarize
    from knet_hvd.ops.native import backend, is_loaded, warn_if_slow

__getattr__ = lazy_names(
    __name__, "functional.encode", "functional.decode", "functional.digits", "native", "reference"
)

__all__ = [
    "BLOCK_BYTES",
    "GROUP_VALUES",
    "LEVEL_WORDS",
    "SCALE_RULES",
    "WIRE_FORMATS",
    "ScaleRule",
    "WireFormat",
    "backend",
    "block_values",
    "code_bits",
    "decode_mean",
    "dequantize",
    "digits_per_word",
    "is_loaded",
    "num_scale_groups",
    "num_words",
    "pack_digits",
    "padded_values",
    "payload_bytes",
    "reference",
    "scales",
    "statistics",
    "ternarize",
    "unpack_digits",
    "unpack_sum",
    "warn_if_slow",
]

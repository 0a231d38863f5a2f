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
    WIRE_FORMATS,
    WireFormat,
    block_values,
    digits_per_word,
    num_scale_groups,
    num_words,
    padded_values,
    payload_bytes,
)

if TYPE_CHECKING:
    from knet_hvd.ops import reference, reference_many
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
    from knet_hvd.ops.functional_many import (
        cuda_launches,
        decode_mean_many,
        dequantize_many,
        max_abs_many,
        statistics_many,
        ternarize_many,
    )
    from knet_hvd.ops.native import backend, is_loaded, warn_if_slow

__getattr__ = lazy_names(
    __name__, "functional", "functional_many", "native", "reference", "reference_many"
)

__all__ = [
    "BLOCK_BYTES",
    "GROUP_VALUES",
    "LEVEL_WORDS",
    "WIRE_FORMATS",
    "WireFormat",
    "backend",
    "block_values",
    "cuda_launches",
    "decode_mean",
    "decode_mean_many",
    "dequantize",
    "dequantize_many",
    "digits_per_word",
    "is_loaded",
    "max_abs",
    "max_abs_many",
    "num_scale_groups",
    "num_words",
    "pack_digits",
    "padded_values",
    "payload_bytes",
    "reference",
    "reference_many",
    "statistics",
    "statistics_many",
    "ternarize",
    "ternarize_many",
    "unpack_digits",
    "unpack_sum",
    "warn_if_slow",
]

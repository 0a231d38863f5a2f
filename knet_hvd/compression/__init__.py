"""Gradient compression: scale rules, the ternary and levels codecs, error feedback.

Knows tensors and numbers of ranks, but no Horovod: ``knet_hvd.data_parallel`` moves the
bytes. Read it in the order of the data: gradient -> (residual) -> statistics -> scale
-> codes -> packed bytes -> summed codes -> gradient.
"""

from typing import TYPE_CHECKING

from knet_hvd.compression.config import TernaryConfig
from knet_hvd.lazy import lazy_names

if TYPE_CHECKING:
    from knet_hvd.compression.error_feedback import ErrorFeedback
    from knet_hvd.compression.levels import LevelsCodec
    from knet_hvd.compression.scales import local_scales
    from knet_hvd.compression.ternary import TernaryCodec

__getattr__ = lazy_names(__name__, "error_feedback", "levels", "scales", "ternary")

__all__ = [
    "ErrorFeedback",
    "LevelsCodec",
    "TernaryCodec",
    "TernaryConfig",
    "local_scales",
]

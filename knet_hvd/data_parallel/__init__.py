"""Data-parallel training on unpatched Horovod; the only package that imports it.

``DistributedOptimizer`` (path A) exchanges packed codes itself and is the smallest and
the exact one. ``Compression.ternary`` (path B) is an argument of Horovod's own
optimizer.
"""

from knet_hvd.data_parallel.adapter import Compression, TernaryCompressor
from knet_hvd.data_parallel.agreement import check_agreement
from knet_hvd.data_parallel.distributed_optimizer import DistributedOptimizer
from knet_hvd.data_parallel.snapshots import GradientSnapshot

__all__ = [
    "Compression",
    "DistributedOptimizer",
    "GradientSnapshot",
    "TernaryCompressor",
    "check_agreement",
]

"""Data-parallel training on unpatched Horovod; the only package that imports it.

``DistributedOptimizer`` (path A) exchanges packed codes itself and is the smallest and
the exact one. ``Compression.ternary`` (path B) is an argument of Horovod's own
optimizer.
"""

from knet_hvd.data_parallel.allreduce.compressor import Compression, TernaryCompressor
from knet_hvd.data_parallel.optimizer.distributed import DistributedOptimizer
from knet_hvd.data_parallel.ranks.agreement import check_agreement
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot

__all__ = [
    "Compression",
    "DistributedOptimizer",
    "GradientSnapshot",
    "TernaryCompressor",
    "check_agreement",
]

"""Data-parallel training: gradients cross as ternary codes.

``DistributedOptimizer`` (path A) exchanges packed codes itself and is the smallest and
the exact one. ``Compression.ternary`` (path B) is an argument of Horovod's own
optimizer. Both need Horovod, so they are loaded on first use.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Compression": "allreduce.compression",
    "DistributedOptimizer": "optimizer.distributed",
    "GradientSnapshot": "reducer.snapshots",
    "TernaryCompressor": "allreduce.compressor",
}

__all__ = [
    "Compression",
    "DistributedOptimizer",
    "GradientSnapshot",
    "TernaryCompressor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

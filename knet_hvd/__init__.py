"""Train deep networks across slow or unequal machines.

The public names, loaded on first use, so that the codec works without Horovod:

``DistributedOptimizer``
    in place of Horovod's: gradients cross the network as ternary codes (TernGrad);
``Compression``
    ``Compression.ternary(...)`` for the ``compression=`` argument of Horovod's own;
``TernaryConfig``
    the settings of both.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Compression": "knet_hvd.data_parallel",
    "DistributedOptimizer": "knet_hvd.data_parallel",
    "TernaryConfig": "knet_hvd.compression",
    "KnetError": "knet_hvd.errors",
    "RankMismatchError": "knet_hvd.errors",
}

__all__ = [
    "Compression",
    "DistributedOptimizer",
    "KnetError",
    "RankMismatchError",
    "TernaryConfig",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'knet_hvd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

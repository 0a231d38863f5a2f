"""Formulas of what crosses the network; takes plain numbers, imports no Horovod."""

from knet_hvd.performance.wire_bytes import (
    allgather_bytes,
    allreduce_bytes,
    alltoall_bytes,
    cheapest_exchange,
)

__all__ = [
    "allgather_bytes",
    "allreduce_bytes",
    "alltoall_bytes",
    "cheapest_exchange",
]

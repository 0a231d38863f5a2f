"""Bytes that one rank sends in each collective, headers of the network not counted.

Formulas of the bandwidth-optimal algorithms (ring, pairwise), which is what Open MPI,
gloo and NCCL use for large messages. ``benchmarks/exchange/wire_bytes.py`` compares them with
the bytes that network interfaces count.
"""


def allreduce_bytes(num_bytes: float, num_ranks: int) -> float:
    """Return what a rank sends to reduce a buffer of ``num_bytes`` on all ranks."""
    return 2 * num_bytes * (num_ranks - 1) / num_ranks


def allgather_bytes(num_bytes: float, num_ranks: int) -> float:
    """Return what a rank sends so that all ranks have its ``num_bytes``."""
    return num_bytes * (num_ranks - 1)


def alltoall_bytes(num_bytes: float, num_ranks: int) -> float:
    """Return what a rank sends of a buffer of ``num_bytes`` cut into equal shards."""
    return num_bytes * (num_ranks - 1) / num_ranks

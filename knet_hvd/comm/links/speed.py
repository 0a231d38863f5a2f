"""Measure the links between all pairs of ranks."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from mpi4py import MPI

from knet_hvd.comm.world import World

_TAG = 9
_SMALL_BYTES = 64
_LARGE_BYTES = 2**20
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class LinkSpeed:
    """Describe one direction between two ranks.

    Attributes:
        latency_s: Seconds until a message of no length is there.
        bytes_per_s: Bytes a second.
    """

    latency_s: float
    bytes_per_s: float

    def seconds(self, num_bytes: int) -> float:
        """Return the time that a message takes."""
        return self.latency_s + num_bytes / self.bytes_per_s


def measure_links(
    world: World, pairs: Sequence[tuple[int, int]] | None = None
) -> dict[tuple[int, int], LinkSpeed]:
    """Measure half the round trip between each two ranks, one pair at a time.

    Args:
        world: All ranks; every rank has to call.
        pairs: Which to measure, the lower rank first, the same on every rank; all if
            not given.

    Returns:
        The speed by source and target, the same on every rank and in both directions.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    own: dict[str, tuple[float, float]] = {}
    if pairs is None:
        pairs = list(combinations(range(world.size), 2))
    for low, high in pairs:
        if world.rank in (low, high):
            small = _half_round_trip_s(world, low, high, _SMALL_BYTES)
            large = _half_round_trip_s(world, low, high, _LARGE_BYTES)
            rate = (_LARGE_BYTES - _SMALL_BYTES) / max(large - small, 1e-9)
            own[f"{low},{high}"] = (small, rate)
        world.gather_text("", "a link to be measured")
    links: dict[tuple[int, int], LinkSpeed] = {}
    for text in world.gather_text(json.dumps(own), "the speed of links"):
        for key, (latency_s, bytes_per_s) in json.loads(text).items():
            low, high = (int(rank) for rank in key.split(","))
            links.setdefault((low, high), LinkSpeed(latency_s, bytes_per_s))
            links.setdefault((high, low), LinkSpeed(latency_s, bytes_per_s))
    return links


def _half_round_trip_s(world: World, low: int, high: int, num_bytes: int) -> float:
    """Return the least of some times; the lower rank begins."""
    buffer = np.zeros(num_bytes, dtype=np.uint8)
    peer = high if world.rank == low else low
    what = f"rank {world.rank}: measuring the link to rank {peer}"
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        for sends in (world.rank == low, world.rank == high):
            post = world.comm.Isend if sends else world.comm.Irecv
            request = post([buffer, MPI.BYTE], peer, _TAG)
            world.waiter.until(request.Test, what)
        times.append((time.perf_counter() - start) / 2)
    return min(times)

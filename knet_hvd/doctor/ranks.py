"""Time links and processors of all ranks."""

import json
import time

import torch

from knet_hvd.comm import World, measure_links
from knet_hvd.comm.throttle import Throttle
from knet_hvd.doctor.report import Links
from knet_hvd.doctor.speed_checks import pairs_to_measure

_REPEATS = 9
_SIDE = 512


def measure_ranks(world: World, throttle: Throttle) -> tuple[list[float], Links]:
    """Time the processors, all at once as in a job, then the links, one at a time.

    Args:
        world: All ranks; every rank has to call.
        throttle: Makes this rank slower, for tests.

    Returns:
        Seconds of the same computation on each rank, and the speed of links by source
        and target.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    world.gather_text("", "all ranks to compute")
    own = json.dumps(_compute_s(throttle))
    texts = world.gather_text(own, "the speed of all ranks")
    return [json.loads(text) for text in texts], measure_links(world, pairs_to_measure(world.size))


def _compute_s(throttle: Throttle) -> float:
    """Return the least time of a product of matrices; the first run warms up."""
    matrix = torch.ones(_SIDE, _SIDE)
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        with throttle:
            torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return min(times[1:])

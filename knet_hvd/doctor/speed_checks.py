"""Which links to time, and from times to findings."""

import statistics
from collections.abc import Mapping, Sequence
from itertools import combinations

from knet_hvd.doctor.findings import Finding

FAR_SLOWER = 2.0
"""Times slower than the others that a rank's processor is reported from."""
FAR_SLOWER_LINK = 4.0
"""The same for links, whose times scatter more."""
_MAX_ALL_PAIRS = 8


def pairs_to_measure(num_ranks: int) -> list[tuple[int, int]]:
    """Return all pairs of few ranks, or the neighbors in a ring of many."""
    if num_ranks <= _MAX_ALL_PAIRS:
        return list(combinations(range(num_ranks), 2))
    return [*((rank, rank + 1) for rank in range(num_ranks - 1)), (0, num_ranks - 1)]


def check_speeds(compute_s: Sequence[float]) -> Finding:
    """Judge whether a rank computes far slower than the others.

    Args:
        compute_s: Seconds of the same computation on each rank, two or more.
    """
    slow = []
    for rank, seconds in enumerate(compute_s):
        others = [*compute_s[:rank], *compute_s[rank + 1 :]]
        ratio = seconds / statistics.median(others)
        if ratio >= FAR_SLOWER:
            slow.append(f"rank {rank} computes {ratio:.1f} times slower than the others")
    if slow:
        return Finding(
            "equal speed",
            "warning",
            "; ".join(slow),
            "see what else runs there, its clock and OMP_NUM_THREADS; a pipeline can "
            "allow for it: --placement measured",
        )
    ratio = max(compute_s) / min(compute_s)
    found = f"the slowest rank computes {ratio:.2f} times slower than the fastest"
    return Finding("equal speed", "ok", found)


def check_links(bytes_per_s: Mapping[tuple[int, int], float], hosts: Sequence[str]) -> Finding:
    """Judge whether a link is far slower than others of its kind.

    Links within a machine are one kind, those between machines the other.

    Args:
        bytes_per_s: Of each link, by its two ranks.
        hosts: The machine of each rank.
    """
    rates: dict[bool, dict[tuple[int, int], float]] = {True: {}, False: {}}
    for (low, high), rate in bytes_per_s.items():
        rates[hosts[low] == hosts[high]][low, high] = rate
    slow = []
    for of_kind in rates.values():
        for pair, rate in of_kind.items():
            others = [other for each, other in of_kind.items() if each != pair]
            if others and rate * FAR_SLOWER_LINK <= statistics.median(others):
                ratio = statistics.median(others) / rate
                slow.append(f"{pair[0]}-{pair[1]} is {ratio:.1f} times slower")
    if slow:
        return Finding(
            "links",
            "warning",
            f"between ranks {', '.join(slow)} than others like it",
            "look at that machine's network: interface (btl_tcp_if_include), cable, other traffic",
        )
    return Finding("links", "ok", f"{len(bytes_per_s)} measured, none far slower")

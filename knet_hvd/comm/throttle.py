"""Make a rank slower than it is, to test unequal ranks on equal machines."""

import re
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from knet_hvd.comm import World
    from knet_hvd.comm.waiting import Waiter


class Throttle:
    """Stretch the time of the code that runs within it.

    The additional time is slept: on a machine whose cores are shared by ranks, burning
    it would slow the other ranks as well.
    """

    def __init__(self, factor: float = 1.0, waiter: "Waiter | None" = None) -> None:
        """Set how many times longer everything takes.

        Args:
            factor: 1 or more; 1 changes nothing.
            waiter: Knows the time waited for other ranks, which is not stretched.

        Raises:
            ValueError: If it is below 1.
        """
        if not factor >= 1:
            raise ValueError(f"factor: expected at least 1, got {factor}")
        self.factor = factor
        self._waiter = waiter
        self._start_s = 0.0

    def __enter__(self) -> "Throttle":
        """Begin to measure."""
        self._start_s = self._busy_s()
        return self

    def __exit__(self, *_: object) -> None:
        """Add what is missing."""
        if self.factor > 1:
            time.sleep((self.factor - 1) * (self._busy_s() - self._start_s))

    def _busy_s(self) -> float:
        idle_s = 0.0 if self._waiter is None else self._waiter.idle_s
        return time.perf_counter() - idle_s


def parse_slow_rank(text: str | None) -> tuple[int, float]:
    """Return the rank and the factor of a setting such as `1:3.0`.

    Args:
        text: The setting; None slows no rank.

    Returns:
        The rank, -1 for none, and the factor.

    Raises:
        ValueError: If the text is of another form, or the factor below 1.
    """
    if text is None:
        return -1, 1.0
    match = re.fullmatch(r"(\d+):(\d+(?:\.\d+)?)", text)
    if match is None or float(match[2]) < 1:
        raise ValueError(
            "slow_rank: expected RANK:FACTOR with a factor of at least 1, such as "
            f"1:3.0, got {text!r}"
        )
    return int(match[1]), float(match[2])


def throttle_of(world: "World", slow_rank: str | None) -> Throttle:
    """Return the throttle of this rank.

    Args:
        world: Knows the rank.
        slow_rank: The setting.
    """
    slow, factor = parse_slow_rank(slow_rank)
    return Throttle(factor if world.rank == slow else 1.0, world.waiter)

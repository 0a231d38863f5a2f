"""A measured time against a size."""

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class TimeCurve:
    """Seconds against a size, linear between measured points and beyond the last.

    Attributes:
        sizes: Rising, at least two.
        seconds: One for each.

    Raises:
        ValueError: If there are fewer than two points, or they do not rise.
    """

    sizes: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.seconds) or len(self.sizes) < 2:
            raise ValueError(
                "a curve takes two or more sizes, and seconds for each; "
                f"got {len(self.sizes)} and {len(self.seconds)}"
            )
        if any(a >= b for a, b in pairwise(self.sizes)):
            raise ValueError(f"sizes: expected to rise, got {self.sizes}")

    @property
    def latency_s(self) -> float:
        """Seconds of the smallest size."""
        return self.seconds[0]

    @property
    def slope_s(self) -> float:
        """Seconds that each further unit takes beyond the last point."""
        rise = self.seconds[-1] - self.seconds[-2]
        return max(0.0, rise / (self.sizes[-1] - self.sizes[-2]))

    def efficient_size(self, tolerance: float = 0.1) -> float:
        """Return the smallest measured size that is about as fast as any, by the unit.

        Args:
            tolerance: How much longer than the best a unit may take, as a share.
        """
        by_unit = [s / size for size, s in zip(self.sizes, self.seconds, strict=True)]
        limit_s = (1 + tolerance) * min(by_unit)
        return next(
            size for size, seconds in zip(self.sizes, by_unit, strict=True) if seconds <= limit_s
        )

    def at(self, size: float) -> float:
        """Return the seconds of a size; no size takes less than the smallest one."""
        if size <= self.sizes[0]:
            return self.latency_s
        points = zip(self.sizes, self.seconds, strict=True)
        for (x0, y0), (x1, y1) in pairwise(points):
            if size <= x1:
                return y0 + (y1 - y0) * (size - x0) / (x1 - x0)
        return self.seconds[-1] + self.slope_s * (size - self.sizes[-1])

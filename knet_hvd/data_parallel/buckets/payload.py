"""Payloads: ranges of gradients whose codes cross the network at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Slice:
    """A range of one gradient.

    Attributes:
        parameter: The parameter's number in the bucket.
        values: First and number of the range in the flattened gradient.
        scales: First and number of its scales in the bucket.
    """

    parameter: int
    values: tuple[int, int]
    scales: tuple[int, int]


@dataclass(slots=True)
class PayloadPlan:
    """What crosses the network at once, so that codec and wire work at the same time.

    The codes of its slices lie in their order, whole blocks each, and so do their
    scales in the bucket, without a gap.
    """

    name: str
    slices: list[Slice] = field(default_factory=list)
    streams: list[int] = field(default_factory=list)
    """Of each slice, its parameter's stream."""
    first_values: list[int] = field(default_factory=list)
    """Where each slice begins in its gradient."""
    num_values: int = 0
    num_bytes: int = 0

    def add(self, part: Slice, stream: int, num_bytes: int) -> None:
        """Append a range of the parameter of that stream, whose codes are that many bytes."""
        self.slices.append(part)
        self.streams.append(stream)
        self.first_values.append(part.values[0])
        self.num_values += part.values[1]
        self.num_bytes += num_bytes

    @property
    def scales(self) -> tuple[int, int]:
        """First and number of its scales in the bucket."""
        first, last = self.slices[0].scales, self.slices[-1].scales
        return first[0], sum(last) - first[0]

    def parts(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return its ranges of the parameters' flattened tensors [n]."""
        return [
            tensor
            if (tensor := tensors[part.parameter]).numel() == part.values[1]
            else tensor.narrow(0, *part.values)
            for part in self.slices
        ]

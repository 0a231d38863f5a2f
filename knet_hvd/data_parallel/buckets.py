"""Gradient buckets: which parameters cross together, and where each one lies.

Buckets fill in the order in which backward usually produces gradients, the last
parameters first, and are the same on all ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import TernaryCodec


@dataclass(frozen=True, slots=True, eq=False)
class NamedParameter:
    """A parameter, its name, and its stream of random numbers (its number)."""

    name: str
    tensor: Tensor
    stream: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Where one parameter's part of a bucket's buffers begins.

    Attributes:
        parameter: The parameter.
        payload: First byte and number of bytes of its codes.
        scales: First and number of its scales.
        sums: First of its sums of codes; there are as many as values.
    """

    parameter: NamedParameter
    payload: tuple[int, int]
    scales: tuple[int, int]
    sums: int


@dataclass(slots=True)
class TernaryBucket:
    """Parameters whose codes cross the network in one payload."""

    index: int
    slices: list[Slice] = field(default_factory=list)
    payload_bytes: int = 0
    num_scales: int = 0

    @property
    def name(self) -> str:
        """Number and first parameter: another optimizer's buckets have other names."""
        return f"{self.index}.{self.slices[0].parameter.name}"

    @property
    def device(self) -> torch.device:
        """The device of all parameters of the bucket."""
        return self.slices[0].parameter.tensor.device

    @property
    def parameters(self) -> list[NamedParameter]:
        """The bucket's parameters."""
        return [part.parameter for part in self.slices]

    def add(self, parameter: NamedParameter, codec: TernaryCodec) -> None:
        """Append a parameter; its codes start a block of their own."""
        numel = parameter.tensor.numel()
        size, scales = codec.payload_bytes(numel), codec.num_scales(numel)
        planes = ops.block_values(codec.config.wire_format) // ops.BLOCK_BYTES
        self.slices.append(
            Slice(
                parameter,
                (self.payload_bytes, size),
                (self.num_scales, scales),
                self.payload_bytes * planes,
            )
        )
        self.payload_bytes += size
        self.num_scales += scales


@dataclass(slots=True)
class FloatBucket:
    """Parameters whose gradients cross the network in floating point, in one buffer."""

    index: int
    dtype: torch.dtype
    parameters: list[NamedParameter] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Number and first parameter: another optimizer's buckets have other names."""
        return f"{self.index}.{self.parameters[0].name}"

    @property
    def numel(self) -> int:
        """Values in the buffer."""
        return sum(parameter.tensor.numel() for parameter in self.parameters)


def plan_buckets(
    parameters: Sequence[NamedParameter],
    codec: TernaryCodec,
    max_values: int,
    groups: Sequence[frozenset[str]] = (),
) -> tuple[list[TernaryBucket], list[FloatBucket]]:
    """Assign every parameter to a bucket.

    Args:
        parameters: In the model's order.
        codec: Its configuration says which stay in floating point.
        max_values: A ternary bucket takes no further parameter beyond this.
        groups: Names that belong in one bucket, whatever its size.

    Returns:
        The ternary buckets and the float buckets (one a device and dtype: fp64 for fp64
        gradients, fp32 for all others).
    """
    ternary: list[TernaryBucket] = []
    floats: dict[tuple[torch.device, torch.dtype], FloatBucket] = {}
    open_buckets: dict[object, tuple[TernaryBucket, int]] = {}
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    for parameter in reversed(parameters):
        tensor = parameter.tensor
        if codec.config.stays_float(parameter.name, tensor.numel()):
            dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
            bucket = FloatBucket(len(floats), dtype)
            floats.setdefault((tensor.device, dtype), bucket).parameters.append(
                parameter
            )
            continue
        group = group_of.get(parameter.name)
        key = (tensor.device, group)
        current, values = open_buckets.get(key, (None, 0))
        full = group is None and values + tensor.numel() > max_values
        if current is None or full:
            current, values = TernaryBucket(len(ternary)), 0
            ternary.append(current)
        current.add(parameter, codec)
        open_buckets[key] = (current, values + tensor.numel())
    return ternary, list(floats.values())

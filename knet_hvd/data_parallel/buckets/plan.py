"""Gradient buckets: which parameters cross together, and where each one lies.

Buckets fill in the order in which backward usually produces gradients, the last
parameters first, and are the same on all ranks.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import TernaryCodec
from knet_hvd.data_parallel.buckets.payload import PayloadPlan, Slice
from knet_hvd.errors import KnetError

PAYLOAD_VALUES = 4 * 2**20
"""Default values of a payload."""

MAX_BUCKET_VALUES = 4 * 2**20
"""Default values beyond which a bucket takes no further parameter."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedParameter:
    """A parameter, its name, and its stream of random numbers (its number)."""

    name: str
    tensor: Tensor
    stream: int

    @property
    def gradient(self) -> Tensor:
        """The memory of its gradient: what is written there is no change of the script's.

        Raises:
            KnetError: If it has none.
        """
        gradient = self.tensor.grad
        if gradient is None:
            raise KnetError(f"{self.name}: its gradient was removed while it was being exchanged")
        return gradient.data


@dataclass(slots=True)
class TernaryBucket:
    """Parameters whose scales are shared together, and whose codes cross in payloads."""

    index: int
    optimizer: int = 0
    payload_values: int = PAYLOAD_VALUES
    parameters: list[NamedParameter] = field(default_factory=list)
    scales: list[tuple[int, int]] = field(default_factory=list)
    """First and number of each parameter's scales."""
    payloads: list[PayloadPlan] = field(default_factory=list)
    num_scales: int = 0

    @property
    def name(self) -> str:
        """Numbers of optimizer and bucket, and the first parameter, for messages."""
        return f"{self.optimizer}.{self.index}.{self.parameters[0].name}"

    @property
    def num_values(self) -> int:
        """Values of all its parameters."""
        return sum(payload.num_values for payload in self.payloads)

    def without(self, tensors: Collection[Tensor], codec: TernaryCodec) -> "TernaryBucket":
        """Return a bucket of the other parameters."""
        bucket = TernaryBucket(self.index, self.optimizer, self.payload_values)
        for parameter in self.parameters:
            if parameter.tensor not in tensors:
                bucket.add(parameter, codec)
        return bucket

    def add(self, parameter: NamedParameter, codec: TernaryCodec) -> None:
        """Append a parameter, cut so that payloads hold about ``payload_values`` values.

        Every cut falls between blocks and between scale groups, so that the bytes
        are those of the whole gradient.
        """
        self.parameters.append(parameter)
        numel, scale_group_size = parameter.tensor.numel(), codec.config.scale_group_size
        unit = math.lcm(ops.block_values(codec.config.wire_format), scale_group_size or 1)
        part_values = max(unit, self.payload_values // unit * unit)
        for first in range(0, numel, part_values):
            count = min(part_values, numel - first)
            scale = self.num_scales + (first // scale_group_size if scale_group_size else 0)
            self._append(first, count, (scale, codec.num_scales(count)), codec, part_values)
        self.scales.append((self.num_scales, codec.num_scales(numel)))
        self.num_scales += codec.num_scales(numel)

    def _append(
        self,
        first: int,
        count: int,
        scales: tuple[int, int],
        codec: TernaryCodec,
        payload_values: int,
    ) -> None:
        """Put a range of the last parameter into the last payload or a new one."""
        if not self.payloads or self.payloads[-1].num_values + count > payload_values:
            self.payloads.append(PayloadPlan(f"{self.name}.{len(self.payloads)}"))
        part = Slice(len(self.parameters) - 1, (first, count), scales)
        self.payloads[-1].add(part, self.parameters[-1].stream, codec.payload_bytes(count))


@dataclass(slots=True)
class FloatBucket:
    """Parameters whose gradients cross the network in floating point, in one buffer."""

    index: int
    dtype: torch.dtype
    optimizer: int = 0
    parameters: list[NamedParameter] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Numbers of optimizer and bucket, and the first parameter, for messages."""
        return f"{self.optimizer}.{self.index}.{self.parameters[0].name}"

    @property
    def numel(self) -> int:
        """Values in the buffer."""
        return sum(parameter.tensor.numel() for parameter in self.parameters)

    def without(self, tensors: Collection[Tensor], codec: TernaryCodec) -> "FloatBucket":
        """Return a bucket of the other parameters."""
        others = [each for each in self.parameters if each.tensor not in tensors]
        return FloatBucket(self.index, self.dtype, self.optimizer, others)


def plan_buckets(
    parameters: Sequence[NamedParameter],
    codec: TernaryCodec,
    max_values: int,
    groups: Sequence[frozenset[str]] = (),
    payload_values: int = PAYLOAD_VALUES,
    optimizer: int = 0,
) -> tuple[list[TernaryBucket], list[FloatBucket]]:
    """Assign every parameter to a bucket.

    Args:
        parameters: In the model's order.
        codec: Its configuration says which stay in floating point.
        max_values: A ternary bucket takes no further parameter beyond this.
        groups: Names that belong in one bucket, whatever its size.
        payload_values: A payload holds about that many values.
        optimizer: Number of the optimizer: buckets of another one have other names.

    Returns:
        The ternary buckets and the float buckets (one a device and dtype: fp64 for fp64
        gradients, fp32 for all others).
    """
    ternary: list[TernaryBucket] = []
    floats: dict[tuple[torch.device, torch.dtype], FloatBucket] = {}
    open_buckets: dict[object, TernaryBucket] = {}
    group_of = {name: number for number, group in enumerate(groups) for name in group}
    for parameter in reversed(parameters):
        tensor = parameter.tensor
        if codec.config.stays_float(parameter.name, tensor.numel()):
            dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
            bucket = FloatBucket(len(floats), dtype, optimizer)
            floats.setdefault((tensor.device, dtype), bucket).parameters.append(parameter)
            continue
        group = group_of.get(parameter.name)
        key = (tensor.device, group)
        current = open_buckets.get(key)
        if current is None or (group is None and current.num_values + tensor.numel() > max_values):
            current = open_buckets[key] = TernaryBucket(len(ternary), optimizer, payload_values)
            ternary.append(current)
        current.add(parameter, codec)
    return ternary, list(floats.values())

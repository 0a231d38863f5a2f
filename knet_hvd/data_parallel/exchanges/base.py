"""Exchanges: how packed codes cross the network and come back as gradients.

An exchange is a generator: it starts a collective operation, yields its handle, and
continues with the result once somebody sends it in. So nothing here waits, and several
buckets can be in flight at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from knet_hvd import ops
from knet_hvd.collectives import Collectives, Handle
from knet_hvd.compression import TernaryCodec
from knet_hvd.data_parallel.buckets.buffers import BufferPool
from knet_hvd.data_parallel.buckets.payload import PayloadPlan
from knet_hvd.data_parallel.buckets.plan import TernaryBucket
from knet_hvd.performance import ExchangeFormula

Reduction = Generator[Handle, Tensor, None]
"""Yields handles of operations, receives their results."""


@dataclass(frozen=True, slots=True)
class CodedBucket:
    """A bucket of gradients as this rank's codes, and where the average goes.

    Attributes:
        plan: Where each parameter lies in the payloads.
        payloads: This rank's codes of each payload, uint8; encoding one overlaps with
            sending those before it.
        scales: Shared scales, fp32 [num_scales].
        outputs: A contiguous tensor [n] for each parameter, overwritten.
    """

    plan: TernaryBucket
    payloads: Iterator[Tensor]
    scales: Tensor
    outputs: list[Tensor]

    def encoded(self) -> Iterator[tuple[PayloadPlan, Tensor]]:
        """Encode each payload as it is asked for, and return it with its plan."""
        return zip(self.plan.payloads, self.payloads, strict=True)

    def scales_of(self, payload: PayloadPlan) -> Tensor:
        """Return the scales of a payload."""
        return self.scales.narrow(0, *payload.scales)

    def outputs_of(self, payload: PayloadPlan) -> list[Tensor]:
        """Return where a payload's values go."""
        return payload.parts(self.outputs)


@dataclass(frozen=True, slots=True)
class Exchange(ABC):
    """Bring the sum of all ranks' codes back to every rank.

    Attributes:
        codec: The ternary codec, the same on all ranks but for the rank.
        collectives: The ranks that take part.
        divisor: What sums are divided by: number of ranks for a mean, 1 for a sum.
        buffers: Memory for codes and sums.
    """

    formula: ClassVar[ExchangeFormula]
    """Its name, the bits that it sends, and how often it decodes."""

    codec: TernaryCodec
    collectives: Collectives
    divisor: int
    buffers: BufferPool = field(default_factory=BufferPool)

    @abstractmethod
    def run(self, coded: CodedBucket) -> Reduction:
        """Exchange one bucket's payloads and decode the result into its outputs."""

    def wire_bytes(self, plan: PayloadPlan) -> float:
        """Return the bytes that this rank sends for a payload, scales not counted."""
        bits = ops.code_bits(self.codec.config.wire_format)
        num_values = 8 * plan.num_bytes / bits
        return self.formula.wire_bits(self.collectives.size, bits) / 8 * num_values

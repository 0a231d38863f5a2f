"""What a reduction keeps from one training step to the next."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from knet_hvd.compression import ErrorFeedback, TernaryCodec
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.data_parallel.exchanges.base import Exchange
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot


class FloatCompressor(Protocol):
    """Compress what crosses in floating point, as a Horovod compressor does."""

    def compress(self, tensor: Tensor) -> tuple[Tensor, Any]:
        """Return what is summed in place of a tensor, and the way back."""

    def decompress(self, tensor: Tensor, context: Any) -> Tensor:
        """Return the sum."""


@dataclass(slots=True)
class ReductionState:
    """Hold what buckets are reduced with, and what lasts between training steps.

    Attributes:
        codec: Turns gradients into codes.
        exchange: Moves the codes.
        float_compressor: For the float buckets; None sends them as they are.
        error_feedback: Residuals, or None.
        step: Number of the training step.
        scales: The latest shared scales by parameter name.
        snapshot_names: Parameters to take snapshots of.
        snapshots: The latest snapshots.
    """

    codec: TernaryCodec
    exchange: Exchange
    float_compressor: FloatCompressor | None = None
    error_feedback: ErrorFeedback | None = None
    step: int = 0
    scales: dict[str, Tensor] = field(default_factory=dict)
    snapshot_names: frozenset[str] = frozenset()
    snapshots: dict[str, GradientSnapshot] = field(default_factory=dict)

    def callers_tensors(self, parameters: Iterable[NamedParameter]) -> Iterator[Tensor]:
        """Iterate over what a reduction of these parameters uses and a caller has made."""
        for parameter in parameters:
            if parameter.tensor.grad is not None:
                yield parameter.tensor.grad
            if self.error_feedback is not None and parameter.name in self.error_feedback.residuals:
                yield self.error_feedback.residuals[parameter.name]  # loaded, before the first step

    def published_tensors(self) -> Iterator[Tensor]:
        """Iterate over what reductions have made for a caller, who may keep it."""
        yield from self.scales.values()
        for snapshot in self.snapshots.values():
            yield from snapshot.tensors()

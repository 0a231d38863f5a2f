"""What a reduction keeps from one training step to the next."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from knet_hvd.compression import ErrorFeedback, TernaryCodec
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.data_parallel.exchanges.base import Exchange
from knet_hvd.data_parallel.reducer.float_sums import FloatSum, transport_sum
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
        float_sum: Adds the float buckets over ranks.
        step: Number of the training step.
        scales: The latest shared scales by parameter name.
        snapshot_names: Parameters to take snapshots of.
        snapshots: The latest snapshots.
    """

    codec: TernaryCodec
    exchange: Exchange
    float_compressor: FloatCompressor | None = None
    error_feedback: ErrorFeedback | None = None
    float_sum: FloatSum = transport_sum
    step: int = 0
    scales: dict[str, Tensor] = field(default_factory=dict)
    snapshot_names: frozenset[str] = frozenset()
    snapshots: dict[str, GradientSnapshot] = field(default_factory=dict)

    @property
    def residuals(self) -> Mapping[str, Tensor]:
        """Error feedback's residuals by parameter name."""
        return self.error_feedback.residuals if self.error_feedback is not None else {}

    def state_dict(self) -> dict[str, Any]:
        """Return copies of what this rank keeps between steps."""
        feedback = self.error_feedback
        residuals = feedback.state_dict() if feedback is not None else {}
        return {"step": self.step, "residuals": residuals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned on this rank."""
        self.step = int(state["step"])
        if self.error_feedback is not None:
            self.error_feedback.load_state_dict(state["residuals"])

    def callers_tensors(self, parameters: Iterable[NamedParameter]) -> Iterator[Tensor]:
        """Iterate over what a reduction of these parameters uses and a caller has made."""
        for parameter in parameters:
            if parameter.tensor.grad is not None:
                yield parameter.tensor.grad
            if parameter.name in self.residuals:  # loaded since
                yield self.residuals[parameter.name]

    def published_tensors(self) -> Iterator[Tensor]:
        """Iterate over what reductions have made for a caller, who may keep it."""
        yield from self.scales.values()
        for snapshot in self.snapshots.values():
            yield from snapshot.tensors()

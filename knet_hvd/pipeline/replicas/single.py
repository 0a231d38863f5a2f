"""One replica of each stage: nothing to average."""

from typing import Any

from torch import Tensor

from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.stage import Stage


class SingleReplica(Replicas):
    """Do nothing."""

    def attach(self, stage: Stage, source: GradientSource) -> None:
        """Leave the optimizers as they are."""

    def before_evaluation(self, stage: Stage, source: GradientSource) -> None:
        """Do nothing: there is nobody to differ from."""

    def compression_state(self, optimizer: Optimizer | None) -> dict[str, Any]:
        """Return an empty state."""
        return {}

    def load_compression_state(self, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
        """Do nothing."""

    def total(self, values: Tensor) -> Tensor:
        """Return the values."""
        return values

    def close(self) -> None:
        """Do nothing."""

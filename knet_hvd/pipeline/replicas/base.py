"""Replicas of a stage: data parallelism within the pipeline.

The pipeline is there several times, each a row of ranks that trains on its own share of
every batch; neighboring stages talk within their row only. The ranks that hold the
same stage in all rows are its replicas: they average gradients over a Horovod process
set, those of the blocks and those of a synthesizer or local loss, so that all of them
hold the same parameters after every update, bit for bit.

Averages pair up by order: replicas have to make the same updates one after the other.
Hence gradients that come back late are taken after a fixed number of steps.
"""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.stage import Stage


class Replicas(ABC):
    """The replicas of this rank's stage.

    Attributes:
        index: Which replica this rank is, from 0.
        number: The replicas of each stage.
        gradient_bytes: What this rank sends to average a step's gradients, by formula.
        uncompressed_bytes: What it would send for fp32 gradients.
        waited_s: The time that it waited for other replicas.
    """

    index: int = 0
    number: int = 1
    gradient_bytes: float = 0.0
    uncompressed_bytes: float = 0.0
    waited_s: float = 0.0

    @abstractmethod
    def attach(self, stage: Stage, source: GradientSource) -> None:
        """Have a stage and its gradient source learn what the replicas learn together.

        Both have just been built; their optimizers are replaced.
        """

    @abstractmethod
    def before_evaluation(self, stage: Stage, source: GradientSource) -> None:
        """Make sure that all replicas evaluate the same network.

        Batch statistics are those of the first replica: each keeps its own in training.

        Raises:
            RankMismatchError: If replicas hold different parameters.
        """

    @abstractmethod
    def compression_state(self, optimizer: Optimizer | None) -> dict[str, Any]:
        """Return what compression keeps on this rank, such as residuals."""

    @abstractmethod
    def load_compression_state(self, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
        """Load what `compression_state` returned on this rank."""

    @abstractmethod
    def total(self, values: Tensor) -> Tensor:
        """Return the sums over the replicas of this stage, which all have to call.

        Args:
            values: float64 [k].
        """

    @abstractmethod
    def close(self) -> None:
        """Leave the group of replicas; all ranks have to."""

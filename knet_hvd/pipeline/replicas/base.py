"""Replicas of a stage: data parallelism within the pipeline.

The pipeline is there several times, each a row of ranks that trains on its own share of
every batch; neighbouring stages talk within their row only. The ranks that hold the
same stage in all rows are its replicas: they average gradients over a Horovod process
set, those of the blocks and those of a synthesizer or local loss, so that all of them
hold the same parameters after every update, bit for bit.

Averages pair up by order: replicas have to make the same updates one after the other.
Hence gradients that come back late are taken after a fixed number of steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from knet_hvd.comm import World
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.stage import Stage

if TYPE_CHECKING:
    from knet_hvd.training.pipeline.config import PipelineConfig


class Replicas:
    """Know the replicas of this rank's stage: here there is one, so nothing to do.

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

    def attach(self, stage: Stage, decoupler: Decoupler) -> None:
        """Have a stage and its decoupler learn what the replicas learn together.

        Args:
            stage: Just built.
            decoupler: Just built.
        """

    def before_evaluation(self, stage: Stage, decoupler: Decoupler) -> None:
        """Make sure that all replicas evaluate the same network.

        Batch statistics are those of the first replica: each keeps its own in training.

        Raises:
            RankMismatchError: If replicas hold different parameters.
        """

    def compression_state(self, optimizer: Optimizer | None) -> dict[str, Any]:
        """Return what compression keeps on this rank, such as residuals.

        Args:
            optimizer: Of the stage or its decoupler.
        """
        return {}

    def load_compression_state(self, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
        """Load what `compression_state` returned on this rank.

        Args:
            optimizer: Of the stage or its decoupler.
            state: What was returned.
        """

    def total(self, value: int) -> int:
        """Return the sum over the replicas of this stage, which all have to call.

        Args:
            value: This replica's.
        """
        return value

    def close(self) -> None:
        """Leave the group of replicas; all ranks have to."""


def num_stages(config: PipelineConfig, num_ranks: int) -> int:
    """Return the stages that ranks can hold.

    Args:
        config: The job's configuration.
        num_ranks: All ranks.

    Raises:
        ValueError: If stages times replicas is another number than that of the ranks.
    """
    replicas = config.replicas
    if config.stages is None and num_ranks % replicas:
        raise ValueError(
            f"replicas: expected a divisor of {num_ranks}, the number of ranks, got "
            f"{replicas}: start a multiple of {replicas} ranks (mpirun -np), or change "
            "--replicas"
        )
    stages = config.stages or num_ranks // replicas
    if stages * replicas != num_ranks:
        raise ValueError(
            f"stages * replicas: expected as many as there are ranks, {num_ranks}, got "
            f"{stages} * {replicas} = {stages * replicas}: start {stages * replicas} "
            "ranks (mpirun -np), or change --stages or --replicas"
        )
    return stages


def open_replicas(config: PipelineConfig, world: World) -> Replicas:
    """Form the groups of replicas; initializes Horovod if there are any.

    Args:
        config: The job's configuration.
        world: All ranks; every rank has to call.

    Raises:
        KnetError: If Horovod does not see the same ranks as MPI.
    """
    if config.replicas == 1:
        return Replicas()
    # Not at the top: pipelines without replicas run without Horovod.
    from knet_hvd.pipeline.replicas.horovod import SharedReplicas

    return SharedReplicas(config, world)

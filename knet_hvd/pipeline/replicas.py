"""Replicas of a stage: data parallelism within the pipeline.

The pipeline is there several times, each a row of ranks that trains on its own share of
every batch; neighbouring stages talk within their row only. The ranks that hold the
same stage in all rows are its replicas: they average gradients over a Horovod process
set, those of the blocks and those of a synthesizer or local loss, so that all of them
hold the same parameters after every update, bit for bit.

Averages pair up by order: replicas have to make the same updates one after the other.
Hence gradients that come back late are taken after a fixed number of steps.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from knet_hvd.comm import World
from knet_hvd.models import parameters_sha256
from knet_hvd.pipeline.config import PipelineConfig
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.stage import Stage

_PATIENCE = 20
"""How many timeouts to wait for rows that evaluate more slowly."""
_DECOUPLER_SEED = 2**31
"""Keeps the random numbers of a decoupler's codes apart from those of the blocks'."""


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

    def load_compression_state(
        self, optimizer: Optimizer | None, state: dict[str, Any]
    ) -> None:
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
    return Replicas() if config.replicas == 1 else _SharedReplicas(config, world)


class _SharedReplicas(Replicas):
    """Average over several replicas."""

    def __init__(self, config: PipelineConfig, world: World) -> None:
        # Not at the top: pipelines without replicas run without Horovod.
        from knet_hvd.data_parallel.replica_group import ReplicaGroup

        self.number = config.replicas
        self.index = world.rank % self.number
        self._config = config
        self._waiter = world.waiter
        self._patience = 1.0
        starts = range(0, world.size, self.number)
        groups = [range(start, start + self.number) for start in starts]
        self._group = ReplicaGroup(groups, world.rank, world.size, self._wait)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        start_s = self._waiter.idle_s
        self._waiter.until(ready, what, self._patience)
        self.waited_s += self._waiter.idle_s - start_s

    def attach(self, stage: Stage, decoupler: Decoupler) -> None:
        """Begin with the first replica's values, and average all gradients."""
        self._group.broadcast({**_state(stage.blocks), **_state(decoupler.modules)})
        seed = (self._config.ternary.seed + self._config.seed) % 2**32
        stage.optimizer = self._averaging(
            stage.optimizer, stage.blocks, "", seed, self._config.microbatches
        )
        seed = (seed + _DECOUPLER_SEED) % 2**32
        decoupler.optimizer = self._averaging(
            decoupler.optimizer, decoupler.modules, "decoupler.", seed, 1
        )

    def _averaging(
        self,
        optimizer: Optimizer | None,
        module: nn.Module,
        prefix: str,
        seed: int,
        backward_passes: int,
    ) -> Optimizer | None:
        """Return an optimizer that averages over the replicas; None remains None."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            return optimizer
        averaging = self._group.wrap(
            optimizer,
            [
                (prefix + name, parameter)
                for name, parameter in module.named_parameters()
                if parameter.requires_grad
            ],
            self._config.compression,
            replace(self._config.ternary, seed=seed),
            backward_passes,
        )
        self.gradient_bytes += averaging.wire_bytes.compressed
        self.uncompressed_bytes += averaging.wire_bytes.uncompressed
        return averaging

    def before_evaluation(self, stage: Stage, decoupler: Decoupler) -> None:
        """Compare parameters, and take the first replica's batch statistics."""
        facts = {
            "blocks": parameters_sha256(stage.blocks),
            "decoupler": parameters_sha256(decoupler.modules),
        }
        what = f"the parameters of stage {stage.index}, which its replicas share"
        self._group.check_same(facts, what)
        self._group.broadcast(dict(stage.blocks.named_buffers()))

    def compression_state(self, optimizer: Optimizer | None) -> dict[str, Any]:
        """Return residuals and counters of this replica."""
        if optimizer is None:
            return {}
        state: dict[str, Any] = cast(Any, optimizer).compression_state_dict()
        return state

    def load_compression_state(
        self, optimizer: Optimizer | None, state: dict[str, Any]
    ) -> None:
        """Load residuals and counters of this replica."""
        if optimizer is not None:
            cast(Any, optimizer).load_compression_state_dict(state)

    def total(self, value: int) -> int:
        """Return the sum over the replicas, however long they take."""
        self._patience = _PATIENCE
        total = self._group.total(value)
        self._patience = 1.0
        return total

    def close(self) -> None:
        """Leave the group."""
        self._group.close()


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers under names that say whose they are."""
    kind = type(module).__name__
    return {f"{kind}.{name}": value for name, value in module.state_dict().items()}

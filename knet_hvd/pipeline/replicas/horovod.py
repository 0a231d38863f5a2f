"""Replicas of which there are several, joined by Horovod."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from knet_hvd.comm import World
from knet_hvd.data_parallel.replicas.group import ReplicaGroup
from knet_hvd.models import parameters_sha256
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.stage import Stage

if TYPE_CHECKING:
    from knet_hvd.training.pipeline.config import PipelineConfig

_PATIENCE = 20
"""How many timeouts to wait for rows that evaluate more slowly."""
_DECOUPLER_SEED = 2**31
"""Keeps the random numbers of a decoupler's codes apart from those of the blocks'."""


class SharedReplicas(Replicas):
    """Average over several replicas."""

    def __init__(self, config: PipelineConfig, world: World) -> None:
        """Form the groups of replicas; initializes Horovod.

        Args:
            config: The job's configuration.
            world: All ranks; every rank has to call.

        Raises:
            KnetError: If Horovod does not see the same ranks as MPI.
        """
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

    def load_compression_state(self, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
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

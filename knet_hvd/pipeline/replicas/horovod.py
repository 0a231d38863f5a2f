"""Several replicas of each stage, which Horovod joins."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from knet_hvd.comm import World
from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.replicas.group import ReplicaGroup
from knet_hvd.models.checksum import parameters_sha256
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.optimizers import CombinedOptimizer, Optimizer
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.stage import Stage

_TIMEOUTS_OF_EVALUATION = 20
"""How many timeouts to wait for rows that evaluate more slowly."""
_SOURCE_SEED = 2**31
"""Keeps the random numbers of a gradient source's codes apart from those of the blocks'."""


class HorovodReplicas(Replicas):
    """Average over several replicas."""

    def __init__(
        self,
        world: World,
        number: int,
        compression: str,
        ternary: TernaryConfig,
        num_microbatches: int = 1,
    ) -> None:
        """Form the groups of replicas; initializes Horovod.

        Args:
            world: All ranks; every rank has to call.
            number: Replicas of each stage, a divisor of the number of ranks.
            compression: How gradients cross: none, fp16 or ternary.
            ternary: Settings of the codes.
            num_microbatches: Backward passes that an update of the blocks follows.

        Raises:
            KnetError: If Horovod does not see the same ranks as MPI.
        """
        self.number = number
        self.index = world.rank % number
        self._compression = compression
        self._ternary = ternary
        self._num_microbatches = num_microbatches
        self._waiter = world.waiter
        self._timeout_factor = 1.0
        starts = range(0, world.size, number)
        groups = [range(start, start + number) for start in starts]
        self._group = ReplicaGroup(groups, world.rank, world.size, self._wait)

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        start_s = self._waiter.idle_s
        self._waiter.until(ready, what, self._timeout_factor)
        self.waited_s += self._waiter.idle_s - start_s

    def attach(self, stage: Stage, source: GradientSource) -> None:
        """Begin with the first replica's values, and average all gradients."""
        self._group.broadcast({**_state(stage.blocks), **_state(source.modules)})
        stage.optimizer = self._averaging(
            stage.optimizer, stage.blocks, "", self._ternary, self._num_microbatches
        )
        seed = (self._ternary.seed + _SOURCE_SEED) % 2**32
        source.optimizer = self._averaging(
            source.optimizer, source.modules, "decoupler.", replace(self._ternary, seed=seed), 1
        )

    def _averaging(
        self,
        optimizer: Optimizer | None,
        module: nn.Module,
        prefix: str,
        ternary: TernaryConfig,
        backward_passes: int,
    ) -> Optimizer | None:
        """Return an optimizer that averages over the replicas; None remains None."""
        if isinstance(optimizer, CombinedOptimizer):
            parts = [
                self._averaging(each, module, prefix, ternary, backward_passes)
                for each in optimizer.parts
            ]
            return CombinedOptimizer([each for each in parts if each is not None])
        if not isinstance(optimizer, torch.optim.Optimizer):
            return optimizer
        own = {id(each) for group in optimizer.param_groups for each in group["params"]}
        named = [
            (prefix + name, parameter)
            for name, parameter in module.named_parameters()
            if id(parameter) in own
        ]
        averaging = self._group.wrap(optimizer, named, self._compression, ternary, backward_passes)
        self.gradient_bytes += averaging.wire_bytes.compressed
        self.uncompressed_bytes += averaging.wire_bytes.uncompressed
        return averaging

    def before_evaluation(self, stage: Stage, source: GradientSource) -> None:
        """Compare parameters, and take the first replica's batch statistics."""
        facts = {
            "blocks": parameters_sha256(stage.blocks),
            "decoupler": parameters_sha256(source.modules),
        }
        what = f"the parameters of stage {stage.index}, which its replicas share"
        self._group.check_same(facts, what)
        self._group.broadcast(dict(stage.blocks.named_buffers()))

    def compression_state(self, optimizer: Optimizer | None) -> dict[str, Any]:
        """Return residuals and counters of this replica."""
        if optimizer is None:
            return {}
        if isinstance(optimizer, CombinedOptimizer):
            return {"parts": [self.compression_state(each) for each in optimizer.parts]}
        state: dict[str, Any] = cast(Any, optimizer).compression_state_dict()
        return state

    def load_compression_state(self, optimizer: Optimizer | None, state: dict[str, Any]) -> None:
        """Load residuals and counters of this replica."""
        if isinstance(optimizer, CombinedOptimizer):
            for each, part in zip(optimizer.parts, state["parts"], strict=True):
                self.load_compression_state(each, part)
        elif optimizer is not None:
            cast(Any, optimizer).load_compression_state_dict(state)

    def total(self, values: Tensor) -> Tensor:
        """Return the sums over the replicas, however long they take."""
        self._timeout_factor = _TIMEOUTS_OF_EVALUATION
        total = self._group.total(values)
        self._timeout_factor = 1.0
        return total

    def close(self) -> None:
        """Leave the group."""
        self._group.close()


def _state(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers under names that say whose they are."""
    kind = type(module).__name__
    return {f"{kind}.{name}": value for name, value in module.state_dict().items()}

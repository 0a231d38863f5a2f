"""What a stage is made of between two steps, as trees for a checkpoint."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from knet_hvd.checkpoint import StateTree, snapshot
from knet_hvd.comm import World
from knet_hvd.errors import CheckpointError, KnetError
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.stage import Stage
from knet_hvd.training.ema import ParameterEma

_PATIENCE = 2
"""How many timeouts to wait for stages that have not made the step yet."""


@dataclass(slots=True, eq=False)
class StageState:
    """Capture and restore the state of one rank.

    The first replica's shard holds what is the same on all replicas of the stage, under
    ``model``, ``optimizer`` and ``decoupler``; every replica's holds what is its own:
    batch statistics, residuals and counters of the codec, random numbers, and the
    batches and gradients that are under way.

    Attributes:
        stage: The stage.
        runner: Knows its gradient source, and what is under way.
        links: To its neighbors.
        replicas: Of this stage.
        world: All ranks.
        next_rank: The rank of the next stage, if any.
        average: Of the stage's parameters.
        before_capture: Called whenever the state is captured.
    """

    stage: Stage
    runner: Runner
    links: StageLinks
    replicas: Replicas
    world: World
    next_rank: int | None
    average: ParameterEma
    before_capture: Callable[[], None] = lambda: None

    @property
    def _source(self) -> GradientSource:
        return self.runner.gradient_source

    def capture(self, step: int) -> StateTree:
        """Return this rank's shard; nothing of it changes with the next step.

        All ranks have to call it after the same step. Activations of that step have
        then all been taken; gradients on their way back are received, but learned from
        only when the run would have done so anyway.

        Args:
            step: Steps made so far.

        Raises:
            KnetError: On every rank, if training has diverged on any, or a rank is
                lost.
        """
        self._settle(not_finite(self.stage, step))
        self.before_capture()
        shard: dict[str, Any] = {
            "stage": self.stage.index,
            "replica": self.replicas.index,
            "random_state": torch.get_rng_state(),
            "under_way": self.runner.state(),
            "metrics": dict(self._source.metrics),
            "compression": [
                self.replicas.compression_state(optimizer)
                for optimizer in (self.stage.optimizer, self._source.optimizer)
            ],
        }
        if self.replicas.index:
            shard["buffers"] = _buffers(self.stage.blocks)
            shard["decoupler_buffers"] = _buffers(self._source.modules)
            return snapshot(shard)
        shard["model"] = dict(self.stage.blocks.state_dict())
        shard["optimizer"] = _state(self.stage.optimizer)
        shard["average"] = self.average.shadow
        shard["decoupler"] = dict(self._source.modules.state_dict())
        shard["decoupler_optimizer"] = _state(self._source.optimizer)
        return snapshot(shard)

    def _settle(self, error: str) -> None:
        """Wait until all ranks have made the step, and take in what was sent back."""
        link = self.links.input_gradients
        own = {"sent": 0 if link is None else link.sent_frames, "error": error}
        texts = self.world.gather_text(
            json.dumps(own),
            "all stages to make the step of a checkpoint",
            _PATIENCE,
            self.runner.poll_gradients,
        )
        found = [json.loads(text) for text in texts]
        for each in found:
            if each["error"]:
                raise KnetError(each["error"])
        if self.next_rank is not None:
            self.runner.receive_gradients(found[self.next_rank]["sent"])

    def restore(self, own: StateTree, first: StateTree) -> None:
        """Bring this rank to the state that a checkpoint holds, bit for bit.

        Args:
            own: This rank's shard.
            first: That of the stage's first replica.

        Raises:
            CheckpointError: If names or shapes are not those of this stage.
        """
        try:
            self.stage.blocks.load_state_dict(first["model"])
            self._source.modules.load_state_dict(first["decoupler"])
            _load(self.stage.optimizer, first["optimizer"])
            _load(self._source.optimizer, first["decoupler_optimizer"])
            _load_buffers(self.stage.blocks, own.get("buffers", {}))
            _load_buffers(self._source.modules, own.get("decoupler_buffers", {}))
        except (RuntimeError, ValueError, KeyError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(
                f"rank {self.world.rank}: the checkpoint is of another stage "
                f"{self.stage.index}: {text}"
            ) from error
        self.average.shadow = dict(first["average"])
        optimizers = (self.stage.optimizer, self._source.optimizer)
        for optimizer, state in zip(optimizers, own["compression"], strict=True):
            self.replicas.load_compression_state(optimizer, state)
        self.runner.load_state(own["under_way"])
        self._source.metrics = dict(own["metrics"])
        torch.set_rng_state(own["random_state"])


def not_finite(stage: Stage, step: int) -> str:
    """Return what is wrong with the parameters of a stage; empty if nothing.

    Args:
        stage: Being trained.
        step: Steps made so far.
    """
    for name, parameter in stage.blocks.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return (
                f"training diverged before step {step}: {name} of stage {stage.index} "
                "is not finite; lower --learning-rate"
            )
    return ""


def _state(optimizer: Optimizer | None) -> StateTree:
    return None if optimizer is None else optimizer.state_dict()


def _load(optimizer: Optimizer | None, state: StateTree) -> None:
    if optimizer is not None:
        optimizer.load_state_dict(state)


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_buffers())


@torch.no_grad()
def _load_buffers(module: nn.Module, saved: dict[str, Tensor]) -> None:
    buffers = _buffers(module)
    for name, value in saved.items():
        buffers[name].copy_(value)

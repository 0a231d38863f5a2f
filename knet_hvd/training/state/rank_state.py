"""What every rank of both jobs has between two steps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from knet_hvd.checkpoint import StateTree, snapshot
from knet_hvd.devices import CPU
from knet_hvd.devices.random_state import save_random_states
from knet_hvd.errors import CheckpointError, KnetError
from knet_hvd.metrics import MetricLogger
from knet_hvd.training.state.ema import ParameterEma


class Optimizer(Protocol):
    """What the state of a rank needs of an optimizer."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups, whose `lr` may be set."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it keeps between updates."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A module that learns, with its optimizer.

    Attributes:
        name: Of its entry in a shard, such as ``"model"``.
        module: The module.
        optimizer: None if the module has nothing to learn.
    """

    name: str
    module: nn.Module
    optimizer: Optimizer | None

    def key(self, what: str) -> str:
        """Return the name of another entry: those of the model have no prefix."""
        return what if self.name == "model" else f"{self.name}_{what}"

    def load(self, own: Mapping[str, Any], shared: Mapping[str, Any]) -> None:
        """Load what ``RankState.capture`` saved of this part."""
        self.module.load_state_dict(shared[self.name])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(shared[self.key("optimizer")])
        buffers = dict(self.module.named_buffers())
        with torch.no_grad():
            for name, value in own.get(self.key("buffers"), {}).items():
                buffers[name].copy_(value)


@dataclass(slots=True, eq=False)
class RankState:
    """What a rank trains: its model, its optimizer and what goes with them.

    Ranks with the same parameters save them once: one of them saves what is *shared*, the others
    save only what is their own.

    Attributes:
        model: The network, or the blocks of this rank's stage.
        optimizer: Of the model; None if it has nothing to learn.
        average: The moving average of the model's parameters.
        name: Of the model, in messages.
        others: What else learns on this rank, such as a decoupler.
        logger: Writes its curves; whenever the state is captured, they are written out.
        device: Of all that learns here.
    """

    model: nn.Module
    optimizer: Optimizer | None
    average: ParameterEma
    name: str = "the model"
    others: tuple[Part, ...] = ()
    logger: MetricLogger = field(default_factory=MetricLogger)
    device: torch.device = CPU

    @property
    def parts(self) -> tuple[Part, ...]:
        """Return all that learns on this rank, the model first."""
        return Part("model", self.model, self.optimizer), *self.others

    def divergence(self, step: int) -> str:
        """Return what is wrong with the parameters after so many steps; empty if nothing."""
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                return (
                    f"training diverged before step {step}: {name} of {self.name} is not finite; "
                    "lower --learning-rate"
                )
        return ""

    def check_finite(self, step: int) -> None:
        """Stop a run that has diverged.

        Raises:
            KnetError: If a parameter is infinite or NaN.
        """
        error = self.divergence(step)
        if error:
            raise KnetError(error)

    def capture(self, *, shared: bool) -> dict[str, Any]:
        """Return copies of this rank's state; nothing of them changes with the next step.

        Args:
            shared: Whether they hold what ranks share: parameters, optimizers, average.
        """
        # A run that continues from here continues the curves, too.
        self.logger.flush()
        tree: dict[str, Any] = save_random_states(self.device)
        if shared:
            tree["average"] = self.average.shadow
        for part in self.parts:
            if shared:
                tree[part.name] = dict(part.module.state_dict())
                optimizer = part.optimizer
                tree[part.key("optimizer")] = None if optimizer is None else optimizer.state_dict()
            else:
                tree[part.key("buffers")] = dict(part.module.named_buffers())
        copies: dict[str, Any] = snapshot(tree)
        return copies

    def restore(self, own: StateTree, shared: StateTree) -> None:
        """Bring this rank to the state that was captured, but for random numbers.

        Args:
            own: This rank's shard.
            shared: The shard that holds what ranks share.

        Raises:
            CheckpointError: If names or shapes are not those of this model.
        """
        try:
            for part in self.parts:
                part.load(own, shared)
        except (RuntimeError, ValueError, KeyError) as error:
            text = " ".join(str(error).split())
            raise CheckpointError(f"the checkpoint does not fit {self.name}: {text}") from error
        averages: dict[str, Tensor] = shared["average"]
        self.average.shadow = {name: each.to(self.device) for name, each in averages.items()}

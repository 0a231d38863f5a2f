"""Optimizers of stages and of what decouplers train."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import nn

OptimizerName = Literal["sgd", "momentum", "adam"]


class Optimizer(Protocol):
    """What updates parameters: PyTorch's optimizers, or one that averages first."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups, whose `lr` may be set."""

    @property
    def state(self) -> Mapping[Any, Any]:
        """Return what it keeps for each parameter."""

    def step(self) -> Any:
        """Update."""

    def zero_grad(self) -> None:
        """Drop the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it keeps between updates."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""


def update(optimizer: Optimizer | None) -> None:
    """Let an optimizer make its step, and drop the gradients.

    Args:
        optimizer: None where there is nothing to learn.
    """
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def make_optimizer(
    module: nn.Module, name: OptimizerName, learning_rate: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer | None:
    """Return an optimizer for a module, or None if it has nothing to learn.

    Args:
        module: Whose parameters to update.
        name: sgd, momentum (0.9) or adam.
        learning_rate: At the start.
        weight_decay: L2 penalty.

    Raises:
        ValueError: If there is no such optimizer.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    return optimizer_of(parameters, name, learning_rate, weight_decay) if parameters else None


def optimizer_of(
    parameters: list[nn.Parameter],
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float = 0.0,
) -> torch.optim.Optimizer:
    """Return an optimizer for parameters.

    Args:
        parameters: At least one.
        name: sgd, momentum (0.9) or adam.
        learning_rate: At the start.
        weight_decay: L2 penalty.

    Raises:
        ValueError: If there is no such optimizer.
    """
    if name not in ("sgd", "momentum", "adam"):
        raise ValueError(f"optimizer: expected sgd, momentum or adam, got {name!r}")
    # Fused: one pass over the parameters; for Adam half the time of the loop.
    if name == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=weight_decay, fused=True)
    momentum = 0.9 if name == "momentum" else 0.0
    return torch.optim.SGD(
        parameters, learning_rate, momentum=momentum, weight_decay=weight_decay, fused=True
    )

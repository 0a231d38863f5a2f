"""Optimizers of stages and of what decouplers train."""

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import nn

from knet_hvd.pipeline.updates.combined import CombinedOptimizer, Optimizer

__all__ = [
    "CombinedOptimizer",
    "Optimizer",
    "OptimizerName",
    "average",
    "has_averages",
    "make_optimizer",
    "named_optimizer",
    "update",
]

OptimizerName = Literal["sgd", "momentum", "adam"]


def has_averages(optimizer: Optimizer | None) -> bool:
    """Return whether the next updates can be told from averages that the optimizer keeps.

    Args:
        optimizer: As its user has made it; None where there is nothing to learn.
    """
    if isinstance(optimizer, CombinedOptimizer):
        return all(has_averages(each) for each in optimizer.parts)
    if isinstance(optimizer, torch.optim.SGD):
        return all(group["momentum"] > 0 for group in optimizer.param_groups)
    return optimizer is None or isinstance(
        optimizer, torch.optim.Adam | torch.optim.AdamW | torch.optim.Muon
    )


@runtime_checkable
class Averaging(Protocol):
    """An optimizer that averages gradients over replicas before it updates."""

    def average(self) -> None:
        """Average now; the update that follows does not do so again."""


def update(optimizer: Optimizer | None) -> None:
    """Let an optimizer make its step, and drop the gradients.

    Args:
        optimizer: None where there is nothing to learn.
    """
    if optimizer is not None:
        optimizer.step()
        optimizer.zero_grad()


def average(optimizer: Optimizer | None) -> None:
    """Have the gradients averaged over replicas, if there are any, before they are clipped."""
    if isinstance(optimizer, CombinedOptimizer):
        for each in optimizer.parts:
            average(each)
    elif isinstance(optimizer, Averaging):
        optimizer.average()


def make_optimizer(
    module: nn.Module, name: OptimizerName, learning_rate: float, weight_decay: float = 0.0
) -> torch.optim.Optimizer | None:
    """Return an optimizer of what a module learns, or None if it has nothing to learn.

    Args:
        module: Whose parameters to update.
        name: sgd, momentum (0.9) or adam.
        learning_rate: At the start.
        weight_decay: L2 penalty.

    Raises:
        ValueError: If there is no such optimizer.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    return named_optimizer(name, parameters, learning_rate, weight_decay) if parameters else None


def named_optimizer(
    name: OptimizerName,
    parameters: list[nn.Parameter],
    learning_rate: float,
    weight_decay: float = 0.0,
    *,
    fused: bool | None = True,
) -> torch.optim.Optimizer:
    """Return an optimizer of parameters.

    Args:
        name: sgd, momentum (0.9) or adam.
        parameters: At least one.
        learning_rate: At the start.
        weight_decay: L2 penalty.
        fused: Update in one pass over each parameter, which takes half the time for Adam,
            and rounds otherwise than operation by operation; None leaves it to PyTorch.

    Raises:
        ValueError: If there is no such optimizer.
    """
    if name == "adam":
        return torch.optim.Adam(parameters, learning_rate, weight_decay=weight_decay, fused=fused)
    if name not in ("sgd", "momentum"):
        raise ValueError(f"optimizer: expected sgd, momentum or adam, got {name!r}")
    momentum = 0.9 if name == "momentum" else 0.0
    return torch.optim.SGD(
        parameters, learning_rate, momentum=momentum, weight_decay=weight_decay, fused=fused
    )

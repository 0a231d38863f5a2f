"""Stages: the run of blocks that one rank holds, and its optimizer."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

OptimizerName = Literal["sgd", "momentum", "adam"]
Precision = Literal["fp32", "bf16"]


class Optimizer(Protocol):
    """What updates parameters: PyTorch's optimizers, or one that averages first."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups, whose `lr` may be set."""

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


@dataclass(slots=True, eq=False)
class Batch:
    """What a stage holds of a batch (or microbatch) until it has learned from it.

    Attributes:
        step: The training step.
        microbatch: Which part of the step's batch this is.
        labels: int64 [n].
        num_samples: Images of the whole step, which losses are a mean over.
        observed: Whether the step's metrics will be written.
        inputs: fp32 [n, ...], what the stage received; None once it is not needed.
        output: fp32 [n, ...], what the stage made of it.
        prediction: fp32 [n, ...], the synthetic gradient of the output, if any.
    """

    step: int
    microbatch: int
    labels: Tensor
    num_samples: int
    observed: bool = False
    inputs: Tensor | None = None
    output: Tensor | None = None
    prediction: Tensor | None = None

    def take_input_gradient(self) -> Tensor | None:
        """Return the gradient of the inputs, if it was computed, and let them go."""
        gradient = None if self.inputs is None else self.inputs.grad
        self.inputs = None
        return gradient


class Stage:
    """Hold the blocks of one rank.

    Attributes:
        index: Which stage this is, from 0.
        num_stages: All stages.
        blocks: The blocks in order.
        optimizer: Updates the blocks' parameters; None if they have none.
        precision: What forward and backward compute in; what crosses is fp32.
    """

    def __init__(
        self,
        index: int,
        num_stages: int,
        blocks: nn.Sequential,
        optimizer: Optimizer | None,
        precision: Precision = "fp32",
    ) -> None:
        """Take the blocks of a stage.

        Args:
            index: Which stage this is.
            num_stages: All stages.
            blocks: The blocks in order; at least one.
            optimizer: For their parameters.
            precision: What forward and backward compute in.

        Raises:
            ValueError: If there is no such stage, or no block.
        """
        if not 0 <= index < num_stages:
            raise ValueError(f"index: expected 0 to {num_stages - 1}, got {index}")
        if len(blocks) == 0:
            raise ValueError(f"stage {index}: expected at least one block, got none")
        self.index = index
        self.num_stages = num_stages
        self.blocks = blocks
        self.optimizer = optimizer
        self.precision = precision

    @property
    def is_first(self) -> bool:
        """Return whether images come in here."""
        return self.index == 0

    @property
    def is_last(self) -> bool:
        """Return whether logits go out here."""
        return self.index == self.num_stages - 1

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the blocks.

        Args:
            inputs: fp32 [n, ...].

        Returns:
            fp32 [n, ...].
        """
        with self.autocast():
            output: Tensor = self.blocks(inputs)
        return output.float()

    def autocast(self) -> torch.autocast:
        """Return the context in which the stage's precision holds."""
        return torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16")

    def update(self, share: float = 1.0) -> None:
        """Let the optimizer make its step, and drop the gradients.

        Args:
            share: Of the learning rate, for this step only.
        """
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * share
        update(self.optimizer)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def make_optimizer(
    module: nn.Module,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float = 0.0,
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
    if name not in ("sgd", "momentum", "adam"):
        raise ValueError(f"optimizer: expected sgd, momentum or adam, got {name!r}")
    if not parameters:
        return None
    # Fused: one pass over the parameters; for Adam half the time of the loop.
    if name == "adam":
        return torch.optim.Adam(
            parameters, learning_rate, weight_decay=weight_decay, fused=True
        )
    momentum = 0.9 if name == "momentum" else 0.0
    return torch.optim.SGD(
        parameters,
        learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        fused=True,
    )

"""Stages: the run of blocks that one rank holds, and its optimizer."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.optimizers import Optimizer, update
from knet_hvd.pipeline.weights.stash import Stash

Precision = Literal["fp32", "bf16"]


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
        followed: fp32 [n, ...], the gradient of the output that the stage has learned
            from, if it will learn from the rest.
        stash: The weights that made the output, if it keeps a graph.
        updates_ahead: Updates of the stage after the forward pass of the step's first
            microbatch and before the update that the step leads to.
        is_last: Whether it is the last part of the step, whose update follows it.
    """

    step: int
    microbatch: int
    labels: Tensor
    num_samples: int
    observed: bool = False
    inputs: Tensor | None = None
    output: Tensor | None = None
    prediction: Tensor | None = None
    followed: Tensor | None = None
    stash: Stash | None = None
    updates_ahead: int = 0
    is_last: bool = True

    def take_input_gradient(self) -> Tensor | None:
        """Return the gradient of the inputs, if it was computed.

        They are let go, unless a graph is kept to compute it later.
        """
        gradient = None if self.inputs is None else self.inputs.grad
        if gradient is not None or self.stash is None:
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

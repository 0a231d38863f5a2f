"""Stages: the run of blocks that one rank holds, and its optimizer."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from knet_hvd.devices import CPU
from knet_hvd.pipeline.activation import Activation, gradient_of, map_tensors
from knet_hvd.pipeline.blocks.draws import BlockDraws
from knet_hvd.pipeline.optimizers import Optimizer, average, update
from knet_hvd.pipeline.updates.clipping import Clipping

Precision = Literal["fp32", "bf16"]


class Batch:
    """What a stage holds of a batch (or microbatch) until it has learned from it.

    Attributes:
        step: The training step.
        microbatch: Which part of the step's batch this is.
        targets: int64 [n, ...].
        num_samples: Samples of the whole step, which losses are a mean over; of replicas
            that share a step, the mean number.
        log_metrics: Whether the step's metrics will be written.
        is_last: Whether it is the last part of the step, whose update follows it.
        num_updates_until_gradient: Updates of the stage between the forward pass of the
            step's first microbatch and the update that the step leads to.
        arrived_share: Share of the next update's microbatches whose gradients the parameters
            hold before the step's first microbatch runs forward.
        keep_inputs: Whether a graph that hangs on the inputs will be used again.
        memory: What the gradient source keeps of the batch; nobody else looks at it.
    """

    __slots__ = (
        "_inputs",
        "arrived_share",
        "is_last",
        "keep_inputs",
        "log_metrics",
        "memory",
        "microbatch",
        "num_samples",
        "num_updates_until_gradient",
        "step",
        "targets",
    )

    def __init__(
        self,
        *,
        step: int,
        targets: Tensor,
        inputs: Activation | None,
        num_samples: float,
        microbatch: int = 0,
        log_metrics: bool = False,
        is_last: bool = True,
        num_updates_until_gradient: int = 0,
        arrived_share: float = 0.0,
    ) -> None:
        """Take a batch that is about to run forward.

        Args:
            step: The training step.
            targets: int64 [n, ...].
            inputs: [n, ...] each; None for one of a checkpoint that needs them no more.
            num_samples: Samples of the whole step.
            microbatch: Which part of the step's batch this is.
            log_metrics: Whether the step's metrics will be written.
            is_last: Whether it is the last part of the step.
        """
        self.step, self.microbatch = step, microbatch
        self.targets, self.num_samples = targets, num_samples
        self.log_metrics, self.is_last = log_metrics, is_last
        self.num_updates_until_gradient = num_updates_until_gradient
        self.arrived_share = arrived_share
        self.keep_inputs = False
        self.memory: Any = None
        self._inputs = inputs

    @property
    def inputs(self) -> Activation:
        """Return what the stage received.

        Raises:
            ValueError: If the inputs were let go.
        """
        if self._inputs is None:
            raise ValueError(f"the inputs of step {self.step} were let go")
        return self._inputs

    @property
    def kept_inputs(self) -> Activation | None:
        """Return the inputs, or None once they are not needed."""
        return self._inputs

    def take_input_gradient(self) -> Activation | None:
        """Return the gradient of the inputs, if it was computed.

        The inputs are let go, unless a graph is kept to compute the gradient later.
        """
        gradient = None if self._inputs is None else gradient_of(self._inputs)
        if gradient is not None or not self.keep_inputs:
            self._inputs = None
        return gradient


class Stage:
    """Hold the blocks of one rank.

    Attributes:
        index: Which stage this is, from 0.
        num_stages: All stages.
        blocks: The blocks in order.
        optimizer: Updates the blocks' parameters; None if they have none.
        precision: What forward and backward compute in; what crosses is fp32.
        clipping: Limits the norm of gradients before an update; None for no limit.
        draws: Gives each block random numbers of its own; None for PyTorch's generator.
        device: Of the blocks, and of all that they compute.
    """

    def __init__(
        self,
        index: int,
        num_stages: int,
        blocks: nn.Sequential,
        optimizer: Optimizer | None,
        precision: Precision = "fp32",
        device: torch.device = CPU,
    ) -> None:
        """Take the blocks of a stage, at least one; they are on the device.

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
        self.device = device
        self.clipping: Clipping | None = None
        self.draws: BlockDraws | None = None

    @property
    def is_first(self) -> bool:
        """Return whether the network's inputs come in here."""
        return self.index == 0

    @property
    def is_last(self) -> bool:
        """Return whether the network's outputs go out here."""
        return self.index == self.num_stages - 1

    @property
    def num_later_stages(self) -> int:
        """Return how many stages follow."""
        return self.num_stages - 1 - self.index

    def run(self, batch: Batch) -> Activation:
        """Run the blocks on what came in for a batch.

        Returns:
            [n, ...] each; fp32 where the precision is bf16.
        """
        if self.draws is None:
            return self.forward(batch.inputs)
        with self.autocast():
            output: Activation = self.draws.run(
                self.blocks, batch.inputs, batch.step, batch.microbatch
            )
        return self._leaving(output)

    def forward(self, inputs: Activation) -> Activation:
        """Run the blocks, with PyTorch's own random numbers if they draw any.

        Args:
            inputs: [n, ...] each.

        Returns:
            [n, ...] each; fp32 where the precision is bf16.
        """
        with self.autocast():
            output: Activation = self.blocks(inputs)
        return self._leaving(output)

    def _leaving(self, output: Activation) -> Activation:
        """Undo what autocast did to what leaves the stage."""
        if self.precision == "fp32":
            return output
        return map_tensors(lambda each: each.float() if each.is_floating_point() else each, output)

    def autocast(self) -> torch.autocast:
        """Return the context in which the stage's precision holds."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def update(self, lr_scale: float = 1.0) -> None:
        """Let the optimizer make its step, and drop the gradients.

        Args:
            lr_scale: Factor on the learning rate, for this step only.
        """
        if self.clipping is not None:
            average(self.optimizer)
            self.clipping.apply(self.blocks.parameters())
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * lr_scale
        update(self.optimizer)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate

"""The last stage: the loss that the network is trained for."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.stage import Batch, Stage

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(output [n, ...], targets [n, ...]) -> the mean over the samples, a scalar."""


class LossHead(GradientSource):
    """Give the last stage the true gradient of the loss.

    Metrics: `loss`, the mean over the batch (or its microbatch).

    Attributes:
        step_loss: The mean over all samples of the latest step.
    """

    def __init__(self, loss: Loss) -> None:
        """Take the loss, such as ``torch.nn.functional.cross_entropy``."""
        super().__init__()
        self._loss = loss
        self.step_loss = torch.zeros(())

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Compute the loss and run backward through the stage."""
        loss = self._loss(batch.memory, batch.targets)
        if loss.dim() != 0:
            raise ValueError(f"loss: expected a scalar, got {list(loss.shape)}")
        # A mean over the step, not over the microbatch: gradients of microbatches add.
        share = loss * (len(batch.targets) / batch.num_samples)
        share.backward()
        self.metrics["loss"] = loss.detach()
        earlier = self.step_loss if batch.microbatch else 0.0
        self.step_loss = earlier + share.detach()
        batch.memory = None
        return True

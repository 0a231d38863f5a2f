"""The last stage: the loss that the network is trained for."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.stage import Batch, Stage

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(output [n, ...], labels [n, ...]) -> the mean over the samples, a scalar."""


class LossHead(GradientSource):
    """Give the last stage the true gradient of the loss.

    Metrics: `loss`, the mean over the batch (or its microbatch).
    """

    def __init__(self, loss: Loss) -> None:
        """Take the loss, such as ``torch.nn.functional.cross_entropy``."""
        super().__init__()
        self._loss = loss

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Compute the loss and run backward through the stage."""
        loss = self._loss(batch.memory, batch.labels)
        if loss.dim() != 0:
            raise ValueError(f"loss: expected a scalar, got {list(loss.shape)}")
        # A mean over the step, not over the microbatch: gradients of microbatches add.
        (loss * (len(batch.labels) / batch.num_samples)).backward()
        self.metrics["loss"] = loss.detach()
        batch.memory = None
        return True

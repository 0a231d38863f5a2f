"""The gradient of a local loss, which a stage learns from at once: see `local`."""

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.gradient_source import GradientSource, backward_through
from knet_hvd.pipeline.optimizers import make_optimizer, update
from knet_hvd.pipeline.stage import Batch, Stage


class LocalGradient(GradientSource):
    """Take the gradient of a local loss, which learns as well.

    Metrics: `loss`, the local one.
    """

    def __init__(self, loss: nn.Module, learning_rate: float) -> None:
        """Take the loss.

        Args:
            loss: Called with the stage's output and targets.
            learning_rate: Adam's, for the layers of the loss.
        """
        super().__init__()
        self._loss = loss
        self.modules.append(loss)
        self.optimizer = make_optimizer(loss, "adam", learning_rate)

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Go backward from the local loss through its layers and the stage."""
        output, batch.memory = batch.memory, None
        self.metrics["loss"], gradient = local_gradient(self._loss, output, batch.targets)
        backward_through(output, gradient)
        update(self.optimizer)
        return True


def local_gradient(loss: nn.Module, output: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient, and leave the layers' own in `.grad`.

    Args:
        loss: The local loss.
        output: fp32 [n, ...].
        targets: int64 [n], or [n, t] for a sequence.

    Returns:
        fp32 [], and fp32 of the output's shape.
    """
    leaf = output.detach().requires_grad_()
    value: Tensor = loss(leaf, targets)
    value.backward()
    gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
    return value.detach(), gradient

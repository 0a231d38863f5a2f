"""Gradient sources: what gives a stage the gradient of its output.

The last stage has the loss (`LossHead`); every other stage has what its decoupler
builds for it. Decouplers' settings name these classes, and have to be read without torch,
so nothing here imports it before a source is made.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from knet_hvd.checkpoint import StateTree
    from knet_hvd.pipeline.activation import Activation
    from knet_hvd.pipeline.optimizers import Optimizer
    from knet_hvd.pipeline.stage import Batch, Stage


class GradientSource(ABC):
    """Give a stage the gradient of its output as soon as it has run forward.

    A runner calls `forward`, sends the output on, and calls `backward_now`. That says
    whether it left gradients in the stage's parameters (and in the batch's inputs); an
    update follows if it did. Between the two calls, ``batch.memory`` belongs to the
    source.

    Attributes:
        modules: What this source trains besides the stage; empty if nothing.
        optimizer: Updates the modules; None if there is nothing to learn.
        metrics: What the last batch with ``log_metrics`` showed, by name.
        lr_scale: Factor on the learning rate of the stage's next update.
    """

    def __init__(self) -> None:
        """Start without modules and metrics."""
        from torch import nn

        self.modules = nn.ModuleList()
        self.optimizer: Optimizer | None = None
        self.metrics: dict[str, Tensor] = {}
        self.lr_scale = 1.0

    def forward(self, stage: "Stage", batch: "Batch") -> "Activation":
        """Run the stage forward on the batch's inputs and return its output, [n, ...] each."""
        output = stage.run(batch)
        batch.memory = output
        return output

    @abstractmethod
    def backward_now(self, stage: "Stage", batch: "Batch") -> bool:
        """Go backward as far as is possible before anything has come back.

        Returns:
            Whether the stage's parameters have gradients now.
        """


class LateGradientSource(GradientSource):
    """Give a stage a gradient when the next stage has sent one back.

    `backward_late` is called when that is there. Batches that wait for it are part of a
    checkpoint: the source packs what it keeps of them.
    """

    @abstractmethod
    def backward_late(self, stage: "Stage", batch: "Batch", gradient: "Activation") -> bool:
        """Go backward from the gradient that the next stage sent back.

        Args:
            stage: Whose blocks learn.
            batch: What `forward` and `backward_now` left of it.
            gradient: Of the output, where it is floating point: of the mean loss over the
                step.

        Returns:
            Whether the stage's parameters have gradients now.
        """

    def pack_memory(self, batch: "Batch") -> "StateTree":
        """Return ``batch.memory`` as tensors without graphs; by default there is none."""
        return None

    def unpack_memory(self, stage: "Stage", batch: "Batch", tree: "StateTree") -> None:
        """Set ``batch.memory`` to what `backward_now` left, and rebuild its graph.

        Args:
            stage: As it was when the checkpoint was written.
            batch: Its inputs are there, if they were kept.
            tree: What `pack_memory` returned.
        """


def backward_through(output: "Activation", gradient: "Activation") -> None:
    """Go backward through a stage, if there is anything to compute a gradient of.

    In a first stage of pooling alone there is not.

    Args:
        output: With its graph.
        gradient: Of its tensors of floating point.
    """
    import torch

    from knet_hvd.pipeline.activation import learnable, tensors_of

    pairs = zip(learnable(output), tensors_of(gradient), strict=True)
    ends = [(tensor, each) for tensor, each in pairs if tensor.requires_grad]
    if ends:
        torch.autograd.backward([tensor for tensor, _ in ends], [each for _, each in ends])

"""The interface of decouplers."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.stage import Batch, Stage


class Decoupler(ABC):
    """Give a stage the gradient of its output.

    A stage calls `forward`, sends the output on, and calls `learn`. If the next stage
    sends a gradient back for it (`gradients_return`), `learn_from` is called when that
    is there. Either of the two says whether it left gradients in the stage's parameters
    (and in the batch's inputs); an update follows if so.

    Attributes:
        gradients_return: Whether the next stage sends gradients back.
        locked: Whether a step may only begin when the last one is over.
        modules: What this decoupler trains besides the stage; empty if nothing.
        optimizer: Updates the modules; None if there is nothing to learn.
        metrics: What the last observed batch showed, by name.
        update_share: Of its learning rate, what the stage's next update is to take.
    """

    gradients_return: ClassVar[bool] = True
    locked: ClassVar[bool] = False

    def __init__(self) -> None:
        """Start without modules and metrics."""
        self.modules = nn.ModuleList()
        self.optimizer: Optimizer | None = None
        self.metrics: dict[str, Tensor] = {}
        self.update_share = 1.0

    def forward(self, stage: Stage, batch: Batch) -> None:
        """Compute ``batch.output`` from ``batch.inputs``.

        Args:
            stage: Whose blocks to run.
            batch: Its inputs are there.
        """
        batch.output = stage.forward(present(batch.inputs))

    def revive(self, stage: Stage, batch: Batch) -> None:  # noqa: B027  may do nothing
        """Bring a batch that was under way back to what `learn` left of it.

        Args:
            stage: As it was when the checkpoint was written.
            batch: What a checkpoint holds of it: tensors, but no graphs.
        """

    @abstractmethod
    def learn(self, stage: Stage, batch: Batch) -> bool:
        """Learn what can be learned before anything has come back.

        Args:
            stage: Whose blocks learn.
            batch: Its output is there.

        Returns:
            Whether the stage's parameters have gradients now.
        """

    @abstractmethod
    def learn_from(self, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        """Learn from the gradient that the next stage sent back.

        Args:
            stage: Whose blocks learn.
            batch: What `forward` and `learn` left of it.
            gradient: fp32, the shape of the output: of the mean loss over the step.

        Returns:
            Whether the stage's parameters have gradients now.
        """


def go_backward(output: Tensor, gradient: Tensor) -> None:
    """Go backward through a stage, if there is anything to compute a gradient of.

    In a first stage of pooling alone there is not.

    Args:
        output: fp32, with its graph.
        gradient: fp32, of the output.
    """
    if output.requires_grad:
        output.backward(gradient)


def present(tensor: Tensor | None) -> Tensor:
    """Return a tensor that an earlier call has left in the batch.

    Raises:
        ValueError: If it did not.
    """
    if tensor is None:
        raise ValueError("expected the tensor of an earlier call, got None")
    return tensor

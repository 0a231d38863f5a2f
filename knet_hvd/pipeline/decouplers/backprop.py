"""Locked backpropagation: the baseline.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors"
(Nature 1986). A stage waits for the true gradient and keeps its graph until then; all
microbatches of a step are over before the weights change, so that any number of stages
computes what one process does.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from knet_hvd.pipeline.decouplers.base import Decoupler
from knet_hvd.pipeline.gradient_source import LateGradientSource, backward_through
from knet_hvd.pipeline.runners.schedules import Action, one_forward_one_backward, sequential

if TYPE_CHECKING:
    from knet_hvd.pipeline.activation import Activation
    from knet_hvd.pipeline.loss_head import Loss
    from knet_hvd.pipeline.stage import Batch, Stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Backprop(Decoupler):
    """Wait for the true gradient."""

    name: ClassVar[str] = "backprop"
    locked: ClassVar[bool] = True
    takes_microbatches: ClassVar[bool] = True
    takes_tuples: ClassVar[bool] = True

    schedule: Literal["sequential", "1f1b"] = "1f1b"
    """Order of the microbatches: one after the other, or one forward, one backward."""

    def locked_schedule(self, stage: int, num_stages: int, num_microbatches: int) -> list[Action]:
        """Return the order of a stage's passes in a step."""
        if self.schedule == "sequential":
            return sequential(num_microbatches)
        return one_forward_one_backward(stage, num_stages, num_microbatches)

    def build(
        self, out_shape: tuple[int, ...], num_classes: int | None, loss: "Loss | None" = None
    ) -> LateGradientSource:
        """Return what waits for the true gradient."""
        return TrueGradient()


class TrueGradient(LateGradientSource):
    """Keep the graph until the true gradient is there."""

    def backward_now(self, stage: "Stage", batch: "Batch") -> bool:
        """Do nothing before the gradient is there."""
        return False

    def backward_late(self, stage: "Stage", batch: "Batch", gradient: "Activation") -> bool:
        """Run backward through the stage."""
        backward_through(batch.memory, gradient)
        batch.memory = None
        return True

"""Locked backpropagation: the baseline.

Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors"
(Nature 1986). A stage waits for the true gradient and keeps its graph until then; all
microbatches of a step are over before the weights change, so that any number of stages
computes what one process does.
"""

from typing import ClassVar

from torch import Tensor

from knet_hvd.pipeline.decouplers.base import Decoupler, go_backward, present
from knet_hvd.pipeline.stage import Batch, Stage


class Backprop(Decoupler):
    """Wait for the true gradient."""

    gradients_return: ClassVar[bool] = True
    locked: ClassVar[bool] = True

    def learn(self, stage: Stage, batch: Batch) -> bool:
        """Do nothing before the gradient is there."""
        return False

    def learn_from(self, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        """Run backward through the stage."""
        go_backward(present(batch.output), gradient)
        batch.output = None
        return True

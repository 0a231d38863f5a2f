"""The last stage: the loss that the network is trained for."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from knet_hvd.pipeline.decouplers.base import Decoupler, present
from knet_hvd.pipeline.stage import Batch, Stage


class Objective(Decoupler):
    """Give the last stage the true gradient of the cross entropy.

    Metrics: `loss`, the mean over the batch (or its microbatch).
    """

    gradients_return: ClassVar[bool] = False

    def learn(self, stage: Stage, batch: Batch) -> bool:
        """Compute the loss and run backward through the stage."""
        logits = present(batch.output)
        total = functional.cross_entropy(logits, batch.labels, reduction="sum")
        # A mean over the step, not over the microbatch: gradients of microbatches add.
        (total / batch.num_samples).backward()
        self.metrics["loss"] = total.detach() / len(batch.labels)
        batch.output = None
        return True

    def learn_from(self, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        """Refuse: no stage follows.

        Raises:
            ValueError: Always.
        """
        raise ValueError("expected no gradient for the output of the last stage")

"""Delayed gradients with a second forward pass: features replay.

Huo, Gu and Huang, "Training Neural Networks Using Features Replay" (NeurIPS 2018),
section 3: a module keeps the inputs of past batches; when the gradient of an old batch
arrives, it runs that batch again with its present weights and goes backward from the old
gradient. Nothing but inputs is kept, and no old weights.

What differs: in the paper all modules run the forward pass of a batch in turn, here
they overlap too. A gradient may be a step older than there, so that a stage that is
slow for once does not hold up the others.
Batch normalization sees every batch twice; its running statistics move both times.
"""

import torch
from torch import Tensor

from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.gradient_source import LateGradientSource, backward_through
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.pipeline.weights.prediction import predict_weights, running_on


class ReplayedGradient(LateGradientSource):
    """Learn from the true gradient whenever it comes, on the inputs of its batch."""

    def __init__(self, predict_weights: bool = False) -> None:
        """Start without a batch under way.

        Args:
            predict_weights: Run forward on the weights that the gradient will meet: see
                `weights.prediction`.
        """
        super().__init__()
        self._predict_weights = predict_weights
        self._predicted: list[Tensor] = []

    @torch.no_grad()
    def forward(self, stage: Stage, batch: Batch) -> Activation:
        """Compute the output without a graph: the weights will have changed."""
        if not self._predict_weights:
            return stage.run(batch)
        if not self._predicted:
            self._predicted = [torch.empty_like(p) for p in stage.blocks.parameters()]
        if batch.microbatch == 0:  # all of a step run on the same weights
            predict_weights(
                self._predicted, stage.blocks, stage.optimizer, batch.num_updates_until_gradient
            )
        with running_on(self._predicted, stage.blocks):
            return stage.run(batch)

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Do nothing: the inputs are all that is kept."""
        return False

    def backward_late(self, stage: Stage, batch: Batch, gradient: Activation) -> bool:
        """Run the batch again and go backward."""
        backward_through(stage.run(batch), gradient)
        return True

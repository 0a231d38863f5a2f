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
from knet_hvd.pipeline.weights.prediction import running_on
from knet_hvd.pipeline.weights.predictor import WeightPredictor


class ReplayedGradient(LateGradientSource):
    """Learn from the true gradient whenever it comes, on the inputs of its batch."""

    def __init__(self, predictor: WeightPredictor) -> None:
        """Start without a batch under way.

        Args:
            predictor: Says on which weights a batch runs forward.
        """
        super().__init__()
        self._predictor = predictor
        self._predicted: list[Tensor] = []

    @torch.no_grad()
    def forward(self, stage: Stage, batch: Batch) -> Activation:
        """Compute the output without a graph: the weights will have changed."""
        if not self._predictor.predicts:
            return stage.run(batch)
        if not self._predicted:
            self._predicted = [torch.empty_like(p) for p in stage.blocks.parameters()]
        if batch.microbatch == 0:  # all of a step run on the same weights
            self._predictor.write(self._predicted, stage, batch)
        with running_on(self._predicted, stage.blocks):
            return stage.run(batch)

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Do nothing: the inputs are all that is kept."""
        return False

    def backward_late(self, stage: Stage, batch: Batch, gradient: Activation) -> bool:
        """Run the batch again and go backward."""
        backward_through(stage.run(batch), gradient)
        return True

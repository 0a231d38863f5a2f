"""On which weights a batch goes forward whose gradient comes late."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.pipeline.weights.prediction import predict_weights


@dataclass(frozen=True, slots=True)
class WeightPredictor:
    """Choose the weights: those of the moment, or those that the gradient will meet.

    Attributes:
        predicts: Whether weights are predicted.
        counts_arrived: Whether predictions count the gradients of the update under way that
            have come, where a step has microbatches. Each replica counts its own.
    """

    predicts: bool = False
    counts_arrived: bool = True

    def write(self, targets: Sequence[Tensor], stage: Stage, batch: Batch) -> None:
        """Write the weights for a batch.

        Args:
            targets: fp32, the shapes and order of the stage's parameters; are overwritten.
            stage: Whose weights.
            batch: The first microbatch of its step.
        """
        updates = batch.num_updates_until_gradient if self.predicts else 0
        # Sums that will be clipped are not what the optimizer's averages will take.
        counts = self.counts_arrived and stage.clipping is None
        share = batch.arrived_share if counts else 0.0
        predict_weights(targets, stage.blocks, stage.optimizer, updates, share)

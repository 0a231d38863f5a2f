"""Delayed gradients: true ones that are some steps old.

Features replay (the default): Huo, Gu and Huang, "Training Neural Networks Using
Features Replay" (NeurIPS 2018), section 3: a module keeps the inputs of past batches;
when the gradient of an old batch arrives, it runs that batch again with its present
weights and goes backward from the old gradient. Nothing but inputs is kept, and no old
weights.

What differs: in the paper all modules run the forward pass of a batch in turn, here
they overlap too. A gradient may be a step older than there, so that a stage that is
slow for once does not hold up the others.
Batch normalization sees every batch twice; its running statistics move both times.

Without recomputation, graphs and weights are kept instead: see `stashed`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from knet_hvd.pipeline.decouplers.base import SLACK_STEPS, Decoupler, Use
from knet_hvd.pipeline.decouplers.stashed import StashedGradient
from knet_hvd.pipeline.gradient_source import LateGradientSource, backward_through
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.pipeline.weights.prediction import predict_weights, running_on


@dataclass(frozen=True, kw_only=True, slots=True)
class Delayed(Decoupler):
    """Learn from true gradients that come some steps late.

    Raises:
        ValueError: If a setting is out of range.
    """

    name: ClassVar[str] = "delayed"
    takes_microbatches: ClassVar[bool] = True

    recompute: bool = True
    """Keep inputs and run forward on them again (features replay). no: keep each batch's
    graph and weights (DDG), faster and in more memory."""

    predict_weights: bool = False
    """Run forward on the weights that are to be expected when the gradient comes back
    (PipeOptim): late gradients mislead far less, for one pass over the weights."""

    max_delay: int | None = None
    """Most microbatches between one and the gradient that comes back for it. Not given:
    one for each later stage, and one."""

    def __post_init__(self) -> None:
        check_max_delay(self.max_delay)

    @property
    def replays(self) -> bool:
        """Return whether inputs run forward twice."""
        return self.recompute

    def check(self, use: Use) -> None:
        """Refuse predictions without averages, and microbatches that cannot be saved."""
        Decoupler.check(self, use)
        if self.predict_weights and not use.optimizer_has_averages:
            raise ValueError(
                "predict_weights: the averages of momentum or adam are needed, got sgd"
            )
        # Horovod's optimizer cannot be saved between two microbatches of an update.
        if use.num_microbatches > 1 and use.num_replicas > 1 and use.saves_checkpoints:
            raise ValueError(
                "microbatches: expected 1 with delayed gradients, replicas and checkpoints "
                f"together, got {use.num_microbatches}"
            )

    def delay_limit(self, num_later_stages: int) -> int:
        """Return `max_delay`, or one for each later stage, and one."""
        return self.max_delay or num_later_stages + SLACK_STEPS

    def build(self, out_shape: tuple[int, ...], num_classes: int | None) -> LateGradientSource:
        """Return what runs forward again, or what keeps graphs."""
        kind = ReplayedGradient if self.recompute else StashedGradient
        return kind(self.predict_weights)


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
    def forward(self, stage: Stage, batch: Batch) -> Tensor:
        """Compute the output without a graph: the weights will have changed."""
        if not self._predict_weights:
            return stage.forward(batch.inputs)
        if not self._predicted:
            self._predicted = [torch.empty_like(p) for p in stage.blocks.parameters()]
        if batch.microbatch == 0:  # all of a step run on the same weights
            predict_weights(
                self._predicted, stage.blocks, stage.optimizer, batch.num_updates_until_gradient
            )
        with running_on(self._predicted, stage.blocks):
            return stage.forward(batch.inputs)

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Do nothing: the inputs are all that is kept."""
        return False

    def backward_late(self, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        """Run the batch again and go backward."""
        backward_through(stage.forward(batch.inputs), gradient)
        return True


def check_max_delay(max_delay: int | None) -> None:
    """Raise unless a delay is at least one microbatch, or not given.

    Raises:
        ValueError: If it is less.
    """
    if max_delay is not None and max_delay < 1:
        raise ValueError(f"max_delay: expected at least 1, got {max_delay}")

"""Delayed gradients: true ones that are some steps old.

Inputs are kept and run forward again (features replay, the default: see `replayed`), or
graphs and weights are kept instead (DDG: see `stashed`).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from knet_hvd.pipeline.decouplers.base import SLACK_STEPS, Decoupler, Use
from knet_hvd.pipeline.gradient_source import LateGradientSource

if TYPE_CHECKING:
    from knet_hvd.pipeline.loss_head import Loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Delayed(Decoupler):
    """Learn from true gradients that come some steps late.

    Raises:
        ValueError: If a setting is out of range.
    """

    name: ClassVar[str] = "delayed"
    takes_microbatches: ClassVar[bool] = True
    takes_tuples: ClassVar[bool] = True

    recompute: bool = True
    """Keep inputs and run forward on them again (features replay). no: keep each batch's
    graph and weights (DDG), faster and in more memory."""

    predict_weights: bool = False
    """Run forward on the weights that are to be expected when the gradient comes back
    (PipeOptim): late gradients mislead far less, for one pass over the weights."""

    count_arrived: bool = True
    """With microbatches, let predictions count the gradients of the update under way that have
    come already. no: the optimizer's averages alone, as published."""

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
                "predict_weights: expected an optimizer that keeps averages (SGD with momentum, "
                "Adam, AdamW, Muon), got one that does not, or is unknown"
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

    def build(
        self, out_shape: tuple[int, ...], num_classes: int | None, loss: "Loss | None" = None
    ) -> LateGradientSource:
        """Return what runs forward again, or what keeps graphs."""
        from knet_hvd.pipeline.decouplers.replayed import ReplayedGradient
        from knet_hvd.pipeline.decouplers.stashed import StashedGradient
        from knet_hvd.pipeline.weights.predictor import WeightPredictor

        kind = ReplayedGradient if self.recompute else StashedGradient
        return kind(WeightPredictor(self.predict_weights, self.count_arrived))


def check_max_delay(max_delay: int | None) -> None:
    """Raise unless a delay is at least one microbatch, or not given.

    Raises:
        ValueError: If it is less.
    """
    if max_delay is not None and max_delay < 1:
        raise ValueError(f"max_delay: expected at least 1, got {max_delay}")

"""The settings of synthetic gradients."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from knet_hvd.flat_config import SCRIPT_ONLY
from knet_hvd.pipeline.decouplers.base import Decoupler, Use
from knet_hvd.pipeline.decouplers.delayed import check_max_delay
from knet_hvd.pipeline.decouplers.synthetic.layers import SynthesizerLayers
from knet_hvd.pipeline.gradient_source import LateGradientSource

if TYPE_CHECKING:
    from torch import nn

    from knet_hvd.pipeline.loss_head import Loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic(SynthesizerLayers, Decoupler):
    """Learn at once from a gradient that a synthesizer predicts (DNI).

    Raises:
        ValueError: If a setting is out of range.
    """

    name: ClassVar[str] = "synthetic"
    sees_targets: ClassVar[bool] = False

    targets: Literal["bootstrapped", "true", "corrected"] = "bootstrapped"
    """What a synthesizer learns to predict. bootstrapped: what the next stage makes of
    its own prediction, as published; true: the gradient of the loss, which stages carry
    back through graphs that they keep (the same with two stages); corrected: true, and
    stages also learn what synthetic gradients missed: late, but nothing is lost."""

    synthesizer: Callable[[tuple[int, ...]], Any] | None = field(default=None, metadata=SCRIPT_ONLY)
    """A function of the shape of a sample's activation that returns a module, which
    predicts the gradient of each sample's loss (`conditioned`: from activation and targets).
    Let its first predictions be near zero."""

    learning_rate: float = 0.001
    """Adam's learning rate for synthesizers; plain SGD is known not to converge."""

    scale_by_quality: bool = True
    """Multiply the learning rate of the stage before a synthesizer by the square of the
    cosine similarity to true gradients that it has reached so far; with corrected
    targets, the synthetic gradients themselves. As published: no."""

    max_delay: int | None = None
    """Most steps between a batch and the gradient that comes back for it. Not given: 4;
    with true targets at least one for each later stage, and one; corrected, just that."""

    def __post_init__(self) -> None:
        SynthesizerLayers.__post_init__(self)
        check_max_delay(self.max_delay)
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected > 0, got {self.learning_rate}")

    def check(self, use: Use) -> None:
        """Refuse corrections that a checkpoint of replicas would lose."""
        Decoupler.check(self, use)
        # What is left for the next update is each replica's own, and not saved.
        if self.targets == "corrected" and use.num_replicas > 1 and use.saves_checkpoints:
            raise ValueError(
                "targets corrected: expected no replicas together with checkpoints, got "
                f"{use.num_replicas}"
            )

    def delay_limit(self, num_later_stages: int) -> int:
        """Return `max_delay`, or what the targets need."""
        from knet_hvd.pipeline.decouplers.synthetic.sources import SOURCES

        return self.max_delay or SOURCES[self.targets].delay_limit(num_later_stages)

    def build(
        self, out_shape: tuple[int, ...], num_classes: int | None, loss: "Loss | None" = None
    ) -> LateGradientSource:
        """Return a synthesizer that sees outputs of that shape."""
        return self.build_source(out_shape)

    def build_source(self, out_shape: tuple[int, ...], num_classes: int = 0) -> LateGradientSource:
        """Return what learns from a synthesizer, as the settings say.

        Args:
            out_shape: The stage's output, without the batch.
            num_classes: Classes if the synthesizer is to see the targets, 0 if not.
        """
        from knet_hvd.pipeline.decouplers.own_layers import OwnSynthesizer, own_layers
        from knet_hvd.pipeline.decouplers.synthetic.quality import FullQuality, PredictionQuality
        from knet_hvd.pipeline.decouplers.synthetic.sources import SOURCES
        from knet_hvd.pipeline.decouplers.synthetic.synthesizer import Synthesizer

        synthesizer: nn.Module
        if self.synthesizer is None:
            synthesizer = Synthesizer(out_shape, self, num_classes)
        else:
            synthesizer = OwnSynthesizer(
                own_layers(self.synthesizer, out_shape, "synthesizer"), self.sees_targets
            )
        quality = PredictionQuality() if self.scale_by_quality else FullQuality()
        return SOURCES[self.targets](synthesizer, quality, self.learning_rate)

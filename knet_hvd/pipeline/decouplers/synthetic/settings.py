"""The settings of synthetic gradients, and which class they choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

from knet_hvd.pipeline.decouplers.base import Decoupler, Use
from knet_hvd.pipeline.decouplers.delayed import check_max_delay
from knet_hvd.pipeline.decouplers.synthetic.corrected import CorrectedSyntheticGradient
from knet_hvd.pipeline.decouplers.synthetic.published import SyntheticGradient
from knet_hvd.pipeline.decouplers.synthetic.quality import FullQuality, PredictionQuality
from knet_hvd.pipeline.decouplers.synthetic.synthesizer import Synthesizer, SynthesizerLayers
from knet_hvd.pipeline.decouplers.synthetic.true_targets import TrueTargetsGradient
from knet_hvd.pipeline.gradient_source import LateGradientSource

_KINDS: Mapping[str, type[SyntheticGradient]] = MappingProxyType(
    {
        "bootstrapped": SyntheticGradient,
        "true": TrueTargetsGradient,
        "corrected": CorrectedSyntheticGradient,
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Synthetic(SynthesizerLayers, Decoupler):
    """Learn at once from a gradient that a synthesizer predicts (DNI).

    Raises:
        ValueError: If a setting is out of range.
    """

    name: ClassVar[str] = "synthetic"

    targets: Literal["bootstrapped", "true", "corrected"] = "bootstrapped"
    """What a synthesizer learns to predict. bootstrapped: what the next stage makes of
    its own prediction, as published; true: the gradient of the loss, which stages carry
    back through graphs that they keep (the same with two stages); corrected: true, and
    stages also learn what synthetic gradients missed: late, but nothing is lost."""

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
        return self.max_delay or _KINDS[self.targets].delay_limit(num_later_stages)

    def build(self, out_shape: tuple[int, ...], num_classes: int | None) -> LateGradientSource:
        """Return a synthesizer that sees outputs of that shape."""
        return self.build_source(Synthesizer(out_shape, self))

    def build_source(self, synthesizer: Synthesizer) -> LateGradientSource:
        """Return what learns from a synthesizer, as the settings say."""
        quality = PredictionQuality() if self.scale_by_quality else FullQuality()
        return _KINDS[self.targets](synthesizer, quality, self.learning_rate)

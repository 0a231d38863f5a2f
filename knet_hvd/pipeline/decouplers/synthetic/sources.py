"""The gradient sources of synthetic gradients, by what their synthesizers learn to predict."""

from collections.abc import Mapping
from types import MappingProxyType

from knet_hvd.pipeline.decouplers.synthetic.corrected import CorrectedSyntheticGradient
from knet_hvd.pipeline.decouplers.synthetic.published import SyntheticGradient
from knet_hvd.pipeline.decouplers.synthetic.true_targets import TrueTargetsGradient

SOURCES: Mapping[str, type[SyntheticGradient]] = MappingProxyType(
    {
        "bootstrapped": SyntheticGradient,
        "true": TrueTargetsGradient,
        "corrected": CorrectedSyntheticGradient,
    }
)
"""Each value of the setting `targets`, and what it chooses."""

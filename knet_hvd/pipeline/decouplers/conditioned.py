"""cDNI: synthetic gradients from a synthesizer that sees the labels.

Jaderberg et al., "Decoupled Neural Interfaces using Synthetic Gradients" (ICML 2017),
section 3.1: the gradient of a loss depends on the labels, and a synthesizer that knows
them need not guess. Every rank draws the same order of samples from the seed, so that
labels do not cross.
"""

from knet_hvd.pipeline.decouplers.synthesizer import SynthesizerConfig
from knet_hvd.pipeline.decouplers.synthetic import Synthetic


class Conditioned(Synthetic):
    """Learn at once from a gradient predicted from output and labels."""

    def __init__(self, shape: tuple[int, ...], config: SynthesizerConfig, num_labels: int) -> None:
        """Build the synthesizer.

        Args:
            shape: The stage's output, without the batch.
            config: Settings of the synthesizer.
            num_labels: Classes.

        Raises:
            ValueError: If there are no labels.
        """
        if num_labels < 1:
            raise ValueError(f"num_labels: expected at least 1, got {num_labels}")
        super().__init__(shape, config, num_labels)

"""cDNI: synthetic gradients from a synthesizer that sees the targets.

Jaderberg et al., "Decoupled Neural Interfaces using Synthetic Gradients" (ICML 2017),
section 3.1: the gradient of a loss depends on the targets, and a synthesizer that knows
them need not guess. Every rank has the targets, so they do not cross.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from knet_hvd.pipeline.decouplers.base import require_classes
from knet_hvd.pipeline.decouplers.synthetic.settings import Synthetic
from knet_hvd.pipeline.gradient_source import LateGradientSource

if TYPE_CHECKING:
    from knet_hvd.pipeline.loss_head import Loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditioned(Synthetic):
    """Learn at once from a gradient predicted from output and targets (cDNI)."""

    name: ClassVar[str] = "conditioned"
    sees_targets: ClassVar[bool] = True

    def build(
        self, out_shape: tuple[int, ...], num_classes: int | None, loss: "Loss | None" = None
    ) -> LateGradientSource:
        """Return a synthesizer that sees outputs of that shape, and their targets."""
        if self.synthesizer is not None:
            return self.build_source(out_shape)
        return self.build_source(out_shape, require_classes(self.name, num_classes))

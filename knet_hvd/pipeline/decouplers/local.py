"""DGL: a local loss for each stage.

Belilovsky, Eickenberg and Oyallon, "Decoupled Greedy Learning of CNNs" (ICML 2020),
algorithm 1: every module but the last has a small classifier of its own, and learns
from its loss; no gradient crosses a cut, so that nothing has to come back at all. With
`loss = "predsim"` the loss is that of Nøkland and Eidnes: see `local_loss`. Targets do
not cross either: every rank has them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from knet_hvd.flat_config import SCRIPT_ONLY
from knet_hvd.pipeline.decouplers.base import Decoupler, require_classes
from knet_hvd.pipeline.gradient_source import GradientSource

if TYPE_CHECKING:
    from knet_hvd.pipeline.loss_head import Loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Local(Decoupler):
    """Learn at once from a loss of the stage's own.

    Raises:
        ValueError: If a setting is out of range.
    """

    name: ClassVar[str] = "local"
    gradients_return: ClassVar[bool] = False

    loss: Literal["classifier", "predsim"] = "classifier"
    """classifier: cross entropy (DGL); predsim: with similarities within the batch."""

    head: Callable[[tuple[int, ...]], Any] | None = field(default=None, metadata=SCRIPT_ONLY)
    """A function of the shape of a sample's activation that returns a module, whose
    output the network's own loss judges instead of the classifier's."""

    hidden_units: int = 128
    """Hidden units of the classifier; 0 for a linear one."""

    learning_rate: float = 0.001
    """Adam's learning rate for the local loss."""

    def __post_init__(self) -> None:
        if self.hidden_units < 0:
            raise ValueError(f"hidden_units: expected at least 0, got {self.hidden_units}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected > 0, got {self.learning_rate}")

    def build(
        self, out_shape: tuple[int, ...], num_classes: int | None, loss: "Loss | None" = None
    ) -> GradientSource:
        """Return a local loss for outputs of that shape."""
        from knet_hvd.pipeline.decouplers.local_gradient import LocalGradient
        from knet_hvd.pipeline.decouplers.local_loss import LocalLoss
        from knet_hvd.pipeline.decouplers.own_layers import OwnHead, own_layers

        if self.head is not None and loss is not None:
            return LocalGradient(
                OwnHead(own_layers(self.head, out_shape, "head"), loss), self.learning_rate
            )
        classes = require_classes(self.name, num_classes)
        similarities = self.loss == "predsim"
        local = LocalLoss(out_shape, classes, self.hidden_units, similarities=similarities)
        return LocalGradient(local, self.learning_rate)

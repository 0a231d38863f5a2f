"""DGL: a local loss for each stage.

Belilovsky, Eickenberg and Oyallon, "Decoupled Greedy Learning of CNNs" (ICML 2020),
algorithm 1: every module but the last has a small classifier of its own, and learns
from its loss; no gradient crosses a cut, so that nothing has to come back at all. With
`AuxiliaryConfig.loss = "predsim"` the loss is that of Noekland and Eidnes: see
`auxiliary`. Labels do not cross either: every rank draws the same order of samples.
"""

from typing import ClassVar

from torch import Tensor

from knet_hvd.pipeline.decouplers.base import Decoupler, go_backward, present
from knet_hvd.pipeline.decouplers.local_loss import AuxiliaryConfig, AuxiliaryLoss, local_gradient
from knet_hvd.pipeline.optimizers import make_optimizer, update
from knet_hvd.pipeline.stage import Batch, Stage


class Local(Decoupler):
    """Learn at once from a loss of the stage's own.

    Metrics: `loss`, the local one.
    """

    gradients_return: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, ...], config: AuxiliaryConfig, num_labels: int) -> None:
        """Build the local loss.

        Args:
            shape: The stage's output, without the batch.
            config: Settings of the loss.
            num_labels: Classes.
        """
        super().__init__()
        self._loss = AuxiliaryLoss(shape, num_labels, config)
        self.modules.append(self._loss)
        self.optimizer = make_optimizer(self._loss, "adam", config.learning_rate)

    def learn(self, stage: Stage, batch: Batch) -> bool:
        """Go backward from the local loss through its layers and the stage."""
        output = present(batch.output)
        self.metrics["loss"], gradient = local_gradient(self._loss, output, batch.labels)
        go_backward(output, gradient)
        update(self.optimizer)
        batch.output = None
        return True

    def learn_from(self, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        """Refuse: no gradient comes back.

        Raises:
            ValueError: Always.
        """
        raise ValueError("expected no gradient from the next stage with a local loss")

"""Delayed gradients without a second forward pass.

Huo, Gu, Yang and Huang, "Decoupled Parallel Backpropagation with Convergence Guarantee"
(ICML 2018), section 3: a module keeps the graphs of past batches; when the gradient of
an old batch arrives, it goes backward through that batch's graph, activations and
weights as they were. A true gradient, of weights that are some steps old.

What differs: in the paper all modules run the forward pass of a batch in turn, here
they overlap too, as in `delayed`.
"""

from typing import ClassVar

from torch import Tensor

from knet_hvd.pipeline.decouplers.base import Decoupler, go_backward, present
from knet_hvd.pipeline.decouplers.graph_stash import KeptGraphs
from knet_hvd.pipeline.stage import Batch, Stage


class Stashed(Decoupler):
    """Learn from the true gradient whenever it comes, through its batch's graph."""

    gradients_return: ClassVar[bool] = True

    def __init__(self, predict_weights: bool = False) -> None:
        """Start without a batch under way.

        Args:
            predict_weights: Make each graph with the weights that the gradient will
                meet: see `weights.prediction`.
        """
        super().__init__()
        self._graphs = KeptGraphs(predict_weights)

    def forward(self, stage: Stage, batch: Batch) -> None:
        """Compute the output, with a graph that a later update does not touch."""
        self._graphs.forward(stage, batch)

    def revive(self, stage: Stage, batch: Batch) -> None:
        """Make the graph of a checkpoint's batch again."""
        self._graphs.revive(stage, batch)

    def learn(self, stage: Stage, batch: Batch) -> bool:
        """Keep all that the graph holds."""
        return False

    def learn_from(self, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        """Go backward through the graph, and let it go."""
        go_backward(present(batch.output), gradient)
        self._graphs.let_go(batch)
        return True

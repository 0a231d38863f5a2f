"""Delayed gradients without a second forward pass.

Huo, Gu, Yang and Huang, "Decoupled Parallel Backpropagation with Convergence Guarantee"
(ICML 2018), section 3: a module keeps the graphs of past batches; when the gradient of
an old batch arrives, it goes backward through that batch's graph, activations and
weights as they were. A true gradient, of weights that are some steps old.

What differs: in the paper all modules run the forward pass of a batch in turn, here
they overlap too, as in `delayed`.
"""

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.decouplers.graph_stash import GraphStash
from knet_hvd.pipeline.gradient_source import LateGradientSource, backward_through
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.pipeline.weights.predictor import WeightPredictor


class StashedGradient(LateGradientSource):
    """Learn from the true gradient whenever it comes, through its batch's graph."""

    def __init__(self, predictor: WeightPredictor) -> None:
        """Start without a batch under way.

        Args:
            predictor: Says on which weights a batch's graph is made.
        """
        super().__init__()
        self._graphs = GraphStash(predictor)

    def forward(self, stage: Stage, batch: Batch) -> Activation:
        """Compute the output, with a graph that a later update does not touch."""
        batch.memory = self._graphs.forward(stage, batch)
        output: Activation = batch.memory.output
        return output

    def backward_now(self, stage: Stage, batch: Batch) -> bool:
        """Do nothing: all that the graph holds is kept."""
        return False

    def backward_late(self, stage: Stage, batch: Batch, gradient: Activation) -> bool:
        """Go backward through the graph, and free it."""
        graph, batch.memory = batch.memory, None
        backward_through(graph.output, gradient)
        self._graphs.release(batch, graph)
        return True

    def pack_memory(self, batch: Batch) -> StateTree:
        """Return the weights and the random state that made the graph."""
        return self._graphs.pack(batch.memory)

    def unpack_memory(self, stage: Stage, batch: Batch, tree: StateTree) -> None:
        """Make the graph again."""
        batch.memory = self._graphs.rebuild(stage, batch, tree)

"""Graphs of batches under way, which updates of the weights do not touch."""

from dataclasses import dataclass

from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.devices.random_state import save_random_states
from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.packing import pack_tensor, unpack_tensor
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.pipeline.weights.predictor import WeightPredictor
from knet_hvd.pipeline.weights.stash import Stash, StashPool, as_it_was, graph_on


@dataclass(frozen=True, slots=True, eq=False)
class KeptGraph:
    """A graph from a batch's inputs to its output.

    Attributes:
        output: [n, ...] each, with the graph.
        stash: What made the output, besides the inputs.
    """

    output: Activation
    stash: Stash


class GraphStash:
    """Run batches forward with graphs that can be used some updates later."""

    def __init__(self, predictor: WeightPredictor | None = None) -> None:
        """Start without a batch under way.

        Args:
            predictor: Says on which weights a batch runs; those of the moment if not given.
        """
        self._pool = StashPool()
        self._predictor = predictor or WeightPredictor()
        self._weights: list[Tensor] = []  # of the step

    def forward(self, stage: Stage, batch: Batch) -> KeptGraph:
        """Run the batch forward, and keep its inputs for the graph.

        All microbatches of a step run on the weights of the first one.

        Args:
            stage: The same one in every call.
            batch: Its inputs are there.
        """
        if batch.microbatch == 0:
            self._weights = self._pool.take(stage.blocks)
            self._predictor.write(self._weights, stage, batch)
        stash = Stash(self._weights, save_random_states(stage.device))
        batch.keep_inputs = True
        with graph_on(stash, stage.blocks):
            return KeptGraph(stage.run(batch), stash)

    def release(self, batch: Batch, graph: KeptGraph) -> None:
        """Use the memory of a graph that has served again.

        Args:
            batch: Needs its inputs no more.
            graph: Of the batch; nobody else may hold it.
        """
        batch.keep_inputs = False
        if batch.is_last:
            self._pool.give_back(graph.stash.weights)

    def pack(self, graph: KeptGraph) -> StateTree:
        """Return what `rebuild` needs besides the batch's inputs."""
        return {
            "weights": [pack_tensor(each) for each in graph.stash.weights],
            "random_state": graph.stash.random_state,
        }

    def rebuild(self, stage: Stage, batch: Batch, tree: StateTree) -> KeptGraph:
        """Make the graph of a batch from a checkpoint again.

        Args:
            stage: Comes out as it is.
            batch: Its inputs are there.
            tree: What `pack` returned.
        """
        weights = [unpack_tensor(each, stage.device) for each in tree["weights"]]
        stash = Stash(weights, tree["random_state"])
        batch.keep_inputs = True
        with as_it_was(stash, stage.blocks, stage.device), graph_on(stash, stage.blocks):
            return KeptGraph(stage.run(batch), stash)

"""Graphs of batches under way, which updates of the weights do not touch."""

import torch
from torch import Tensor

from knet_hvd.pipeline.decouplers.base import present
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.pipeline.weights.stash import Stash, StashPool, as_it_was, graph_on


class KeptGraphs:
    """Run batches forward with graphs that can be used some updates later."""

    def __init__(self, predict_weights: bool = False) -> None:
        """Start without a batch under way.

        Args:
            predict_weights: Run on the weights that its gradient will meet.
        """
        self._pool = StashPool()
        self._predict_weights = predict_weights
        self._weights: list[Tensor] = []  # of the step

    def forward(self, stage: Stage, batch: Batch) -> None:
        """Compute ``batch.output``, and ``batch.stash`` for its graph.

        All microbatches of a step run on the weights of the first one.

        Args:
            stage: The same one in every call.
            batch: Its inputs are there.
        """
        if batch.microbatch == 0:
            updates = batch.updates_ahead if self._predict_weights else 0
            self._weights = self._pool.take(stage.blocks, stage.optimizer, updates)
        batch.stash = Stash(self._weights, torch.get_rng_state())
        with graph_on(batch.stash, stage.blocks):
            batch.output = stage.forward(present(batch.inputs))

    def revive(self, stage: Stage, batch: Batch) -> None:
        """Make the graph of a batch from a checkpoint again.

        Args:
            stage: Comes out as it is.
            batch: Its inputs and its stash are there.

        Raises:
            ValueError: If it has no stash.
        """
        if batch.stash is None:
            raise ValueError("expected the weights of a batch under way, got None")
        with as_it_was(batch.stash, stage.blocks), graph_on(batch.stash, stage.blocks):
            batch.output = stage.forward(present(batch.inputs))

    def let_go(self, batch: Batch) -> None:
        """Free a graph that has served.

        Args:
            batch: Loses its output and its stash.
        """
        batch.output = None
        if batch.stash is not None:
            if batch.is_last:
                self._pool.give_back(batch.stash.weights)
            batch.stash = None

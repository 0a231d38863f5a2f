"""Synthetic gradients whose synthesizers learn from the gradient of the loss.

A stage still learns at once, but sends back the gradient of the loss: it keeps the
graph of a batch until that comes, and goes backward a second time, to its inputs only.
In the terms of the supplement's BP(lambda) (Jaderberg et al., ICML 2017) that is
lambda = 1, late: no synthesizer has to wait until the next one has learned.
"""

import torch
from torch import Tensor, nn

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import Activation, needs_gradient, only_tensor
from knet_hvd.pipeline.decouplers.base import SLACK_STEPS
from knet_hvd.pipeline.decouplers.graph_stash import GraphStash, KeptGraph
from knet_hvd.pipeline.decouplers.synthetic.published import SyntheticGradient, SyntheticMemory
from knet_hvd.pipeline.decouplers.synthetic.quality import FullQuality
from knet_hvd.pipeline.packing import unpack_optional
from knet_hvd.pipeline.stage import Batch, Stage


class TrueTargetsGradient(SyntheticGradient):
    """Learn at once from a predicted gradient, and send the true one back later."""

    def __init__(self, synthesizer: nn.Module, quality: FullQuality, learning_rate: float) -> None:
        """Take what predicts; see `SyntheticGradient`."""
        super().__init__(synthesizer, quality, learning_rate)
        self._graphs = GraphStash()

    @staticmethod
    def delay_limit(num_later_stages: int) -> int:
        """Return the most steps that a gradient may take through all later stages."""
        return max(num_later_stages + SLACK_STEPS, SyntheticGradient.delay_limit(0))

    def forward(self, stage: Stage, batch: Batch) -> Tensor:
        """Run forward, with a graph to keep if it will be used again."""
        if not self._needs_graph(batch):
            return super().forward(stage, batch)
        graph = self._graphs.forward(stage, batch)
        output = only_tensor(graph.output)
        batch.memory = SyntheticMemory(output, graph=graph)
        return output

    def _needs_graph(self, batch: Batch) -> bool:
        return needs_gradient(batch.inputs)

    def _follow(self, stage: Stage, memory: SyntheticMemory, gradient: Tensor) -> None:
        """Go backward from a predicted gradient, to the parameters only."""
        if memory.graph is None:
            super()._follow(stage, memory, gradient)
            return
        self.lr_scale = self._quality.value() ** 2
        _backward_to_parameters(stage, memory.graph, gradient)

    def backward_late(self, stage: Stage, batch: Batch, gradient: Activation) -> bool:
        """Teach the synthesizer, and carry the true gradient to the inputs."""
        super().backward_late(stage, batch, gradient)
        memory, batch.memory = batch.memory, None
        if memory.graph is not None:
            self._use_graph(stage, batch, memory, only_tensor(gradient))
            self._graphs.release(batch, memory.graph)
        return False

    def _use_graph(
        self, stage: Stage, batch: Batch, memory: SyntheticMemory, gradient: Tensor
    ) -> None:
        """Go backward from the true gradient, to the inputs only."""
        if needs_gradient(batch.inputs):
            inputs = only_tensor(batch.inputs)
            (inputs.grad,) = torch.autograd.grad(memory.output, inputs, gradient)

    def pack_memory(self, batch: Batch) -> StateTree:
        """Return what makes the graph again, or the kept activation without one."""
        memory: SyntheticMemory = batch.memory
        tree = super().pack_memory(batch)
        if memory.graph is None:
            return {**tree, "graph": None}
        return {**tree, "output": None, "graph": self._graphs.pack(memory.graph)}

    def unpack_memory(self, stage: Stage, batch: Batch, tree: StateTree) -> None:
        """Make the graph again."""
        if tree["graph"] is None:
            super().unpack_memory(stage, batch, tree)
            return
        graph = self._graphs.rebuild(stage, batch, tree["graph"])
        prediction = unpack_optional(tree["prediction"], stage.device)
        batch.memory = SyntheticMemory(only_tensor(graph.output), prediction, graph)


def _backward_to_parameters(stage: Stage, graph: KeptGraph, gradient: Tensor) -> None:
    """Go backward to the parameters, and keep the graph."""
    parameters = list(stage.blocks.parameters())
    if parameters:
        output = only_tensor(graph.output)
        output.backward(gradient, retain_graph=True, inputs=parameters)

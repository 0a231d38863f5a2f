"""Synthetic gradients that are corrected when the true ones come.

A stage learns at once from a predicted gradient. When the true one comes, it goes
backward from the difference between the two as well; the result joins its next update.
So each batch gives a true gradient in the end: in part at once, and the rest late. A
synthesizer that knows nothing leaves delayed gradients.
"""

import torch
from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import needs_gradient
from knet_hvd.pipeline.decouplers.base import SLACK_STEPS
from knet_hvd.pipeline.decouplers.synthetic.published import SyntheticMemory, compare
from knet_hvd.pipeline.decouplers.synthetic.true_targets import TrueTargetsGradient
from knet_hvd.pipeline.packing import pack_tensor, unpack_tensor
from knet_hvd.pipeline.stage import Batch, Stage

_TINY = torch.finfo(torch.float32).tiny


class CorrectedSyntheticGradient(TrueTargetsGradient):
    """Learn at once from a predicted gradient, and later from what it missed."""

    @staticmethod
    def delay_limit(num_later_stages: int) -> int:
        """Return the most steps that a gradient may take: no more than it needs."""
        return num_later_stages + SLACK_STEPS

    def _needs_graph(self, batch: Batch) -> bool:
        return True

    def _follow(self, stage: Stage, memory: SyntheticMemory, gradient: Tensor) -> None:
        """Go backward from a part of the predicted gradient, and remember that part."""
        gradient *= self._quality.value()
        memory.applied_gradient = gradient
        super()._follow(stage, memory, gradient)
        self.lr_scale = 1.0  # the gradient itself is scaled

    def _judge(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the factor on the prediction that leaves the least to correct."""
        alike = compare(prediction, target)
        return alike["cosine_similarity"] / alike["norm_ratio"].clamp_min(_TINY)

    def _use_graph(
        self, stage: Stage, batch: Batch, memory: SyntheticMemory, gradient: Tensor
    ) -> None:
        """Add what the prediction missed to the parameters' gradients, then go to the inputs."""
        if memory.applied_gradient is None:
            raise ValueError(f"step {batch.step}: its prediction was never followed")
        missed = gradient - memory.applied_gradient
        _add_gradients(stage, memory.output, missed, retain_graph=needs_gradient(batch.inputs))
        super()._use_graph(stage, batch, memory, gradient)

    def pack_memory(self, batch: Batch) -> StateTree:
        """Return what is kept, with the gradient that was followed."""
        applied = pack_tensor(batch.memory.applied_gradient)
        return {**super().pack_memory(batch), "applied_gradient": applied}

    def unpack_memory(self, stage: Stage, batch: Batch, tree: StateTree) -> None:
        """Make the graph again, and take the gradient that was followed."""
        super().unpack_memory(stage, batch, tree)
        batch.memory.applied_gradient = unpack_tensor(tree["applied_gradient"], stage.device)


def _add_gradients(stage: Stage, output: Tensor, gradient: Tensor, *, retain_graph: bool) -> None:
    """Add the parameters' gradients of an output to what they already have."""
    parameters = list(stage.blocks.parameters())
    if not parameters:
        return
    # Not backward(): replicas average when it reaches a parameter, in the next update.
    found = torch.autograd.grad(output, parameters, gradient, retain_graph=retain_graph)
    for parameter, each in zip(parameters, found, strict=True):
        if parameter.grad is None:
            # In the parameter's layout: fused optimizers take that for granted.
            parameter.grad = torch.zeros_like(parameter)
        parameter.grad += each

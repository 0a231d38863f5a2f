"""A trial of a decoupler on the output of a block, to see how long it takes."""

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.gradient_source import GradientSource, LateGradientSource
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage import Batch, Stage


class DecouplerTrial:
    """Do what a stage does for the gradient of its output, without its blocks."""

    def __init__(self, spec: PipelineSpec) -> None:
        """Take the decoupler and the precision of a pipeline."""
        self._spec = spec
        self._stage = Stage(0, 2, nn.Sequential(nn.Identity()), None, spec.precision)
        self._block = -1
        self._source: GradientSource | None = None

    def run(self, block: int, output: Tensor) -> None:
        """Run a gradient source once; it is built when a block comes for the first time.

        Args:
            block: The number of the block that the stage would end with.
            output: fp32 [n, ...], of that block.
        """
        if self._source is None or block != self._block:
            shape = tuple(output.shape[1:])
            self._source = self._spec.decoupler.build(shape, self._spec.num_classes)
            self._block = block
        inputs = output.detach().float().requires_grad_()
        labels = torch.zeros(len(output), dtype=torch.int64)
        batch = Batch(step=0, labels=labels, inputs=inputs, num_samples=len(output))
        self._source.forward(self._stage, batch)
        self._source.backward_now(self._stage, batch)
        if isinstance(self._source, LateGradientSource):
            self._source.backward_late(self._stage, batch, torch.zeros_like(inputs))

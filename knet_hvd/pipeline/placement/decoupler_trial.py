"""A trial of a decoupler on the output of a block, to see how long it takes."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from knet_hvd.devices import CPU
from knet_hvd.pipeline.activation import (
    Activation,
    Signature,
    learnable,
    map_tensors,
    num_samples,
)
from knet_hvd.pipeline.gradient_source import GradientSource, LateGradientSource
from knet_hvd.pipeline.spec import PipelineSpec, source_of
from knet_hvd.pipeline.stage import Batch, Stage


class DecouplerTrial:
    """Do what a stage does for the gradient of its output, without its blocks."""

    def __init__(self, spec: PipelineSpec, device: torch.device = CPU) -> None:
        """Take the decoupler and the precision of a pipeline, and the device to run on."""
        # Targets are made up here, and only a loss that looks at none takes all of them.
        self._spec = replace(spec, loss=lambda output, _: output.float().mean())
        self._stage = Stage(0, 2, nn.Sequential(nn.Identity()), None, spec.precision, device)
        self._block = -1
        self._source: GradientSource | None = None

    def run(self, block: int, output: Activation) -> None:
        """Run a gradient source once; it is built when a block comes for the first time.

        Args:
            block: The number of the block that the stage would end with.
            output: Of that block.
        """
        if self._source is None or block != self._block:
            signature = Signature.of(output, f"block {block}")
            self._source = source_of(self._spec, signature)
            self._source.modules.to(self._stage.device)
            self._block = block
        inputs = map_tensors(_leaf, output)
        rows = num_samples(output)
        targets = torch.zeros(rows, dtype=torch.int64, device=self._stage.device)
        batch = Batch(step=0, targets=targets, inputs=inputs, num_samples=rows)
        self._source.forward(self._stage, batch)
        self._source.backward_now(self._stage, batch)
        if isinstance(self._source, LateGradientSource):
            gradient = tuple(torch.zeros_like(each) for each in learnable(inputs))
            self._source.backward_late(
                self._stage, batch, gradient if isinstance(inputs, tuple) else gradient[0]
            )


def _leaf(tensor: Tensor) -> Tensor:
    """Return a tensor that crosses, as the next stage receives it."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().float().requires_grad_()

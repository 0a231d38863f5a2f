"""What all stages of a pipeline are built from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.activation import (
    Activation,
    Signature,
    map_tensors,
    num_samples,
    tensors_of,
)
from knet_hvd.pipeline.blocks.base import BlockSource
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.loss_head import Loss
from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.stage import Precision

OptimizerFactory: TypeAlias = Callable[[list[nn.Parameter]], Optimizer]
"""Returns what updates a stage's trainable parameters, of which there is at least one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PipelineSpec:
    """Describe a pipeline; the same on every rank.

    Attributes:
        builder: Hands out the blocks of the network.
        example: Inputs of one microbatch, [n, ...] each; shape, dtype and layout count. No
            batch has more rows.
        loss: What the network is trained for.
        make_optimizer: Returns the optimizer of a stage.
        decoupler: Where the stages' gradients come from.
        num_classes: Classes of the targets; None if they are no classes.
        num_microbatches: Parts of a batch, which follow each other through the stages.
        precision: What stages compute in.
        seed: Of the initial parameters; stages have those of one process. None: PyTorch's
            generator continues from where it is, the same on every rank.
        channels_last: Keep the weights of convolutions as images lie in memory.
        deterministic: Take each late gradient after exactly as many steps as it may take.

    Raises:
        ValueError: If a number is below 1, or the decoupler takes no microbatches.
    """

    builder: BlockSource
    example: Activation
    loss: Loss
    make_optimizer: OptimizerFactory
    decoupler: Decoupler
    num_classes: int | None = None
    num_microbatches: int = 1
    precision: Precision = "fp32"
    seed: int | None = 0
    channels_last: bool = False
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.num_microbatches < 1:
            raise ValueError(f"num_microbatches: expected at least 1, got {self.num_microbatches}")
        for each in tensors_of(self.example):
            if each.dim() < 1 or len(each) < 1:
                raise ValueError(f"example: expected [n, ...], got {list(each.shape)}")

    @property
    def num_samples(self) -> int:
        """Return the rows of the example."""
        return num_samples(self.example)

    def with_rows(self, rows: int) -> "PipelineSpec":
        """Return the same with an example of so many samples."""
        repeats = -(-rows // self.num_samples)

        def repeated(each: Tensor) -> Tensor:
            return each.repeat(repeats, *[1] * (each.dim() - 1))[:rows]

        return replace(self, example=map_tensors(repeated, self.example))

    def random_inputs(self) -> Activation:
        """Return inputs to measure with: random where the example is floating point."""
        return map_tensors(
            lambda each: torch.randn_like(each) if each.is_floating_point() else each, self.example
        )


def source_of(spec: PipelineSpec, output: Signature) -> GradientSource:
    """Return the decoupler's gradient source of a stage that is not the last.

    Args:
        spec: Names the decoupler.
        output: What the stage returns.

    Raises:
        ValueError: If the decoupler cannot handle such outputs or targets.
    """
    shape = output.sample_shape
    if shape is None and not spec.decoupler.takes_tuples:
        raise ValueError(
            f"{spec.decoupler.name}: expected one tensor of floating point between two stages, got "
            f"{len(output.shapes)} of {', '.join(map(str, output.dtypes))}: cut elsewhere"
        )
    return spec.decoupler.build(shape or output.shapes[0][1:], spec.num_classes, spec.loss)

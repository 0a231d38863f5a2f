"""What all stages of a pipeline are built from."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.blocks.base import BlockSource
from knet_hvd.pipeline.decouplers import Decoupler
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
        example: Inputs of one microbatch, [n, ...]; shape, dtype and layout count. No
            batch has more rows.
        loss: What the network is trained for.
        make_optimizer: Returns the optimizer of a stage.
        decoupler: Where the stages' gradients come from.
        num_classes: Classes of the labels; None if they are no classes.
        num_microbatches: Parts of a batch, which follow each other through the stages.
        precision: What stages compute in.
        seed: Of the initial parameters; stages have those of one process. None: PyTorch's
            generator goes on from where it is, the same on every rank.
        channels_last: Keep the weights of convolutions as images lie in memory.
        deterministic: Take each late gradient after exactly as many steps as it may take.

    Raises:
        ValueError: If a number is below 1, or the decoupler takes no microbatches.
    """

    builder: BlockSource
    example: Tensor
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
        if self.example.dim() < 1 or len(self.example) < 1:
            raise ValueError(f"example: expected [n, ...], got {list(self.example.shape)}")

    def with_rows(self, rows: int) -> "PipelineSpec":
        """Return the same with an example of so many samples."""
        repeats = -(-rows // len(self.example))
        example = self.example.repeat(repeats, *[1] * (self.example.dim() - 1))[:rows]
        return replace(self, example=example)

    def random_inputs(self) -> Tensor:
        """Return inputs to measure with: random where the example is floating point."""
        if self.example.is_floating_point():
            return torch.randn_like(self.example)
        return self.example

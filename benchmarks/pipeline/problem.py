"""What the pipeline's benchmarks train: a network, batches, and how a method runs."""

from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from knet_hvd.models import build_model
from knet_hvd.models.blocks import init_kaiming
from knet_hvd.pipeline.optimizers import named_optimizer

NUM_CLASSES = 10
_NUM_BATCHES = 4
_MLP_UNITS = 1024


@dataclass(frozen=True)
class Problem:
    """What all methods train: blocks, batches and the cut into two stages."""

    args: Namespace
    batches: Sequence[tuple[Tensor, Tensor]]
    cut: int

    @classmethod
    def of(cls, args: Namespace) -> "Problem":
        """Return the problem that the command line describes."""
        torch.manual_seed(0)
        shape = (_MLP_UNITS,) if args.network == "mlp" else (3, 32, 32)
        inputs = [torch.randn(args.batch_size, *shape) for _ in range(_NUM_BATCHES)]
        if args.network == "vgg16":
            inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
        targets = torch.randint(NUM_CLASSES, (_NUM_BATCHES, args.batch_size))
        return cls(args, list(zip(inputs, targets, strict=True)), args.cut)

    def blocks(self, rank: int | None = None) -> nn.Sequential:
        """Return the blocks of a rank's stage, or all; every call draws the same."""
        torch.manual_seed(1)
        network = self.network()
        if rank is None:
            return network
        return network[self.cut :] if rank else network[: self.cut]

    def network(self) -> nn.Sequential:
        """Return the whole network with random weights."""
        if self.args.network == "mlp":
            return _mlp(self.args.depth)
        return build_model(
            "vgg16",
            in_shape=(3, 32, 32),
            num_classes=NUM_CLASSES,
            width=self.args.width,
            layerwise=self.args.cut_between == "layers",
        )

    def optimizer(self, blocks: nn.Module) -> Any:
        """Return the optimizer that all methods use."""
        return self.optimizer_of([each for each in blocks.parameters() if each.requires_grad])

    def optimizer_of(self, parameters: list[nn.Parameter]) -> Any:
        """Return the same for parameters, of which there is at least one."""
        return named_optimizer(self.args.optimizer, parameters, 1e-4)


def _mlp(depth: int) -> nn.Sequential:
    layers = [nn.Sequential(nn.Linear(_MLP_UNITS, _MLP_UNITS), nn.ReLU()) for _ in range(depth)]
    network = nn.Sequential(*layers, nn.Linear(_MLP_UNITS, NUM_CLASSES))
    init_kaiming(network)
    return network


class Method(ABC):
    """Train by one method on this rank."""

    idle_s = 0.0
    """Seconds waited for the other rank so far, where it is known."""

    def __init__(self, problem: Problem) -> None:
        """Begin with the first batch."""
        self._problem = problem
        self.steps_done = 0

    def run(self, steps: int) -> None:
        """Train that many steps, until this rank has nothing under way."""
        for _ in range(steps):
            inputs, targets = self._problem.batches[self.steps_done % _NUM_BATCHES]
            self.step(inputs, targets)
            self.steps_done += 1

    @abstractmethod
    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Train on one batch."""

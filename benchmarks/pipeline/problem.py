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

_NUM_CLASSES = {"mlp": 10, "vgg16": 10, "transformer": 100}
"""Of each network; the transformer's are characters."""
_SHAPES = {"mlp": (1024,), "vgg16": (3, 32, 32), "transformer": (64,)}
"""Of a sample."""
_NUM_BATCHES = 4


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
        shape = (args.batch_size, *_SHAPES[args.network])
        classes = _NUM_CLASSES[args.network]
        if args.network == "transformer":
            inputs = [torch.randint(classes, shape) for _ in range(_NUM_BATCHES)]
            targets = torch.randint(classes, (_NUM_BATCHES, *shape))
        else:
            inputs = [torch.randn(shape) for _ in range(_NUM_BATCHES)]
            targets = torch.randint(classes, (_NUM_BATCHES, args.batch_size))
        if args.network == "vgg16":
            inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
        return cls(args, list(zip(inputs, targets, strict=True)), args.cut)

    @property
    def num_classes(self) -> int:
        """Return the classes of the targets."""
        return _NUM_CLASSES[self.args.network]

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
            self.args.network,
            in_shape=_SHAPES[self.args.network],
            num_classes=self.num_classes,
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
    (units,) = _SHAPES["mlp"]
    layers = [nn.Sequential(nn.Linear(units, units), nn.ReLU()) for _ in range(depth)]
    network = nn.Sequential(*layers, nn.Linear(units, _NUM_CLASSES["mlp"]))
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

"""Pipelines of two ranks that a benchmark times: PyTorch's, one process, and ours.

Every method trains the same network on the same batches of random numbers, with the
same optimizer. Ours are put together as jobs/train_pipeline.py does; each has links of
its own.
"""

import os
import random
import time
from abc import ABC, abstractmethod
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.comm import Mesh, World
from knet_hvd.models import build_model
from knet_hvd.models.blocks import init_kaiming
from knet_hvd.pipeline import PipelineConfig
from knet_hvd.pipeline.assembly import build_stage_decoupler, make_runner
from knet_hvd.pipeline.decouplers.registry import decoupler_class
from knet_hvd.pipeline.decouplers.synthesizer import SynthesizerConfig
from knet_hvd.pipeline.optimizers import make_optimizer, update
from knet_hvd.pipeline.stage import Stage
from knet_hvd.pipeline.stage_links import open_links
from knet_hvd.pipeline.throttle import Throttle

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
        labels = torch.randint(NUM_CLASSES, (_NUM_BATCHES, args.batch_size))
        return cls(args, list(zip(inputs, labels, strict=True)), args.cut)

    def blocks(self, rank: int | None = None) -> nn.Sequential:
        """Return the blocks of a rank's stage, or all; every call draws the same."""
        torch.manual_seed(1)
        if self.args.network == "mlp":
            network = _mlp(self.args.depth)
        else:
            network = build_model(
                "vgg16", in_shape=(3, 32, 32), num_classes=NUM_CLASSES,
                width=self.args.width,
            )  # fmt: skip
        if rank is None:
            return network
        return network[self.cut :] if rank else network[: self.cut]

    def optimizer(self, blocks: nn.Module) -> Any:
        """Return the optimizer that all methods use."""
        return make_optimizer(blocks, self.args.optimizer, 1e-4)


def _mlp(depth: int) -> nn.Sequential:
    layers = [
        nn.Sequential(nn.Linear(_MLP_UNITS, _MLP_UNITS), nn.ReLU())
        for _ in range(depth)
    ]
    network = nn.Sequential(*layers, nn.Linear(_MLP_UNITS, NUM_CLASSES))
    init_kaiming(network)
    return network


class _Permute(nn.Module):
    """View images with their dimensions in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self._order = order

    def forward(self, images: Tensor) -> Tensor:
        """Return the view."""
        return images.permute(*self._order)


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
            inputs, labels = self._problem.batches[self.steps_done % _NUM_BATCHES]
            self.step(inputs, labels)
            self.steps_done += 1

    @abstractmethod
    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Train on one batch."""


class Single(Method):
    """One process, on rank 0 while the other rank waits."""

    def __init__(self, problem: Problem, rank: int) -> None:
        """Build all blocks."""
        super().__init__(problem)
        self._rank = rank
        self._blocks = problem.blocks()
        self._optimizer = problem.optimizer(self._blocks)

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Train on one batch."""
        if self._rank == 0:
            functional.cross_entropy(self._blocks(inputs), labels).backward()
            update(self._optimizer)


class Torch1F1B(Method):
    """Schedule1F1B of torch.distributed.pipelining over gloo."""

    def __init__(self, problem: Problem, rank: int, interface: str) -> None:
        """Build this rank's stage; every rank has to."""
        import torch.distributed as dist
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B

        super().__init__(problem)
        os.environ["GLOO_SOCKET_IFNAME"] = interface
        store = Path(problem.args.store)
        dist.init_process_group(
            "gloo", init_method=store.as_uri(), rank=rank, world_size=2
        )
        blocks = nn.Sequential(problem.blocks(rank))
        if problem.args.network == "vgg16":
            # gloo takes contiguous tensors only, and convolutions are faster in
            # channels_last: so that is what crosses, without a copy.
            order = (0, 3, 1, 2) if rank else (0, 2, 3, 1)
            blocks.insert(0 if rank else 1, _Permute(*order))
        stage = PipelineStage(blocks, rank, 2, torch.device("cpu"))
        self._rank = rank
        self._schedule = Schedule1F1B(
            stage, problem.args.microbatches, loss_fn=functional.cross_entropy
        )
        self._optimizer = problem.optimizer(blocks)

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Train on one batch."""
        if self._rank == 0:
            self._schedule.step(inputs)
        else:
            self._schedule.step(target=labels)
        update(self._optimizer)


class Ours(Method):
    """A pipeline of this package; `skew_s` is added to some steps' computation."""

    def __init__(self, problem: Problem, name: str) -> None:
        """Build this rank's stage and its links; every rank has to."""
        super().__init__(problem)
        args = problem.args
        self._world = World()
        rank = self._world.rank
        config = _config(name, args)
        blocks = problem.blocks(rank)
        stage = Stage(rank, 2, blocks, problem.optimizer(blocks))
        with torch.no_grad():
            first = problem.blocks(0).eval()(problem.batches[0][0][:1])
        shape = tuple(first.shape[1:])
        kind = decoupler_class(config.decoupler)
        self.links = open_links(
            self._world, Mesh(2), [shape], config, kind.gradients_return
        )
        decoupler = build_stage_decoupler(config, stage, shape, NUM_CLASSES)
        self._runner = make_runner(config, stage, decoupler, self.links, Throttle())
        self._is_first = stage.is_first
        self._rank = rank
        self.skew: Any = None

    @property
    def idle_s(self) -> float:  # type: ignore[override]
        """Seconds waited for the other rank so far."""
        return self._world.waiter.idle_s

    def run(self, steps: int) -> None:
        """Train that many steps, and take what is still to come back."""
        super().run(steps)
        self._runner.drain()

    def step(self, inputs: Tensor, labels: Tensor) -> None:
        """Train on one batch."""
        if self.skew is not None:
            time.sleep(self.skew(self.steps_done, self._rank))
        self._runner.step(self.steps_done, inputs if self._is_first else None, labels)


def _config(name: str, args: Namespace) -> PipelineConfig:
    decoupler, _, way = name.partition("-")
    locked = decoupler == "backprop"
    synthesizer = SynthesizerConfig(
        hidden_layers=args.synthesizer_layers,
        hidden_units=args.synthesizer_units,
        kernel_size=args.synthesizer_kernel,
    )
    return PipelineConfig(
        decoupler=decoupler,  # type: ignore[arg-type]
        schedule="1f1b" if way == "1f1b" else "sequential",
        microbatches=args.microbatches if way == "1f1b" and locked else 1,
        recompute=way != "stashed",
        batch_size=args.batch_size,
        synthesizer=synthesizer,
        activation_encodings=(args.encoding,),
        gradient_encodings=(args.gradient_encoding,),
        mpi_progress=args.mpi_progress,
    )


def make_method(name: str, problem: Problem, rank: int, interface: str) -> Method:
    """Return a method by name; every rank has to, in the same order."""
    if name == "single":
        return Single(problem, rank)
    if name == "torch-1f1b":
        return Torch1F1B(problem, rank, interface)
    return Ours(problem, name)


def random_skew(seconds: float, step: int, rank: int) -> float:
    """Return what a rank adds to a step: all on one rank, which is drawn each step."""
    return seconds if random.Random(step).randrange(2) == rank else 0.0


def fixed_skew(seconds: float, slow: int, step: int, rank: int) -> float:
    """Return what a rank adds to a step: always the same rank."""
    return seconds if rank == slow else 0.0


def skews(seconds: float) -> dict[str, Any]:
    """Return the ways to add so much time to a step, by name."""
    return {
        "none": None,
        "random": partial(random_skew, seconds),
        "first": partial(fixed_skew, seconds, 0),
        "last": partial(fixed_skew, seconds, 1),
    }

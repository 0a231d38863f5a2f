"""Pipelines of two ranks that a benchmark times: PyTorch's, one process, and ours.

Every method trains the same network on the same batches of random numbers, with the
same optimizer. Ours are built by the function that jobs/train_pipeline.py uses; each has
links of its own.
"""

import time
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.pipeline.baselines import Single, Torch1F1B
from benchmarks.pipeline.problem import NUM_CLASSES, Method, Problem
from knet_hvd.comm import World
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder
from knet_hvd.pipeline.build import build_rank
from knet_hvd.pipeline.decouplers import Backprop, Conditioned, Decoupler, Delayed, Local, Synthetic
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.spec import PipelineSpec


class Ours(Method):
    """A pipeline of this package; `skew_s` is added to some steps' computation."""

    def __init__(self, problem: Problem, name: str) -> None:
        """Build this rank's stage and its links; every rank has to."""
        super().__init__(problem)
        args = problem.args
        self._world = World()
        self._rank = self._world.rank
        parts = args.microbatches if name.endswith(("1f1b", "microbatches")) else 1
        spec = PipelineSpec(
            builder=BlockBuilder(problem.network),
            example=torch.empty_like(problem.batches[0][0].chunk(parts)[0]),
            loss=functional.cross_entropy,
            make_optimizer=problem.optimizer_of,
            decoupler=_decoupler(name, args),
            num_classes=NUM_CLASSES,
            num_microbatches=parts,
            seed=1,
        )
        links = LinkSettings(
            activation_encodings=(args.encoding,),
            gradient_encodings=(args.gradient_encoding,),
            mpi_progress=args.mpi_progress,
        )
        plan = Plan((problem.cut,), (0, 1), 0.0)
        built = build_rank(spec, plan, self._world, links=links, log_every=20)
        self.links, self._runner = built.links, built.runner
        self._is_first = self._runner.stage.is_first
        self.skew: Any = None

    @property
    def idle_s(self) -> float:  # type: ignore[override]
        """Seconds waited for the other rank so far."""
        return self._world.waiter.idle_s

    def run(self, steps: int) -> None:
        """Train that many steps, and take what is still to come back."""
        super().run(steps)
        self._runner.drain()

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Train on one batch."""
        if self.skew is not None:
            time.sleep(self.skew(self.steps_done, self._rank))
        self._runner.step(self.steps_done, inputs if self._is_first else None, targets)


def _decoupler(name: str, args: Namespace) -> Decoupler:
    """Return the decoupler of a method, such as delayed-stashed-predicted."""
    kind, _, way = name.partition("-")
    layers = {
        "hidden_layers": args.synthesizer_layers,
        "hidden_units": args.synthesizer_units,
        "kernel_size": args.synthesizer_kernel,
    }
    if kind == "backprop":
        return Backprop(schedule="1f1b" if way == "1f1b" else "sequential")
    if kind == "delayed":
        return Delayed(recompute="stashed" not in way, predict_weights="predicted" in way)
    if kind == "local":
        return Local()
    return (Conditioned if kind == "conditioned" else Synthetic)(**layers)


def make_method(name: str, problem: Problem, rank: int, interface: str) -> Method:
    """Return a method by name; every rank has to, in the same order."""
    if name.startswith("single"):
        return Single(problem, rank)
    if name.startswith("torch-1f1b"):
        return Torch1F1B(problem, rank, interface)
    return Ours(problem, name)

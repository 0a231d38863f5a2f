"""Pipelines of two ranks that a benchmark times: PyTorch's, one process, and ours.

Every method trains the same network on the same batches of random numbers, with the
same optimizer. Ours are put together as jobs/train_pipeline.py does; each has links of
its own.
"""

import time
from argparse import Namespace
from typing import Any

import torch
from torch import Tensor

from benchmarks.pipeline.baselines import Single, Torch1F1B
from benchmarks.pipeline.problem import NUM_CLASSES, Method, Problem
from knet_hvd.comm import Mesh, World
from knet_hvd.comm.throttle import Throttle
from knet_hvd.pipeline.build import build_stage_decoupler, make_runner
from knet_hvd.pipeline.decouplers.registry import decoupler_class
from knet_hvd.pipeline.decouplers.synthesizer import SynthesizerConfig
from knet_hvd.pipeline.links import open_links
from knet_hvd.pipeline.stage import Stage
from knet_hvd.training.pipeline.config import PipelineConfig


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
        self.links = open_links(self._world, Mesh(2), [shape], config, kind.gradients_return)
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
    synthesizer = SynthesizerConfig(
        hidden_layers=args.synthesizer_layers,
        hidden_units=args.synthesizer_units,
        kernel_size=args.synthesizer_kernel,
    )
    return PipelineConfig(
        decoupler=decoupler,  # type: ignore[arg-type]
        schedule="1f1b" if way == "1f1b" else "sequential",
        microbatches=args.microbatches if way.endswith(("1f1b", "microbatches")) else 1,
        recompute="stashed" not in way,
        predict_weights="predicted" in way,
        batch_size=args.batch_size,
        synthesizer=synthesizer,
        activation_encodings=(args.encoding,),
        gradient_encodings=(args.gradient_encoding,),
        mpi_progress=args.mpi_progress,
    )


def make_method(name: str, problem: Problem, rank: int, interface: str) -> Method:
    """Return a method by name; every rank has to, in the same order."""
    if name.startswith("single"):
        return Single(problem, rank)
    if name.startswith("torch-1f1b"):
        return Torch1F1B(problem, rank, interface)
    return Ours(problem, name)

"""Pipelines of two ranks that a benchmark times: PyTorch's, one process, and ours.

Every method trains the same network on the same batches of random numbers, with the
same optimizer. Ours are pipelines as a script of one's own makes them.
"""

import time
from argparse import Namespace
from typing import Any

from torch import Tensor

from benchmarks.pipeline.baselines import Single, Torch1F1B
from benchmarks.pipeline.problem import Method, Problem
from knet_hvd.data.dataset import cross_entropy
from knet_hvd.pipeline import (
    Backprop,
    Conditioned,
    Delayed,
    LinkSettings,
    Local,
    Pipeline,
    Synthetic,
)
from knet_hvd.pipeline.decouplers import Decoupler


class Ours(Method):
    """A pipeline of this package; `skew` gives seconds to add to a step's computation."""

    def __init__(self, problem: Problem, name: str) -> None:
        """Build this rank's stage; every rank has to."""
        super().__init__(problem)
        args = problem.args
        self._pipeline = Pipeline(
            problem.network,
            example=problem.batches[0][0][:1],
            loss=cross_entropy,
            optimizer=problem.optimizer_of,
            decoupler=_decoupler(name, args),
            cuts=[problem.cut],
            microbatches=args.microbatches if name.endswith(("1f1b", "microbatches")) else 1,
            num_classes=problem.num_classes,
            links=LinkSettings(
                activation_encodings=(args.encoding,),
                gradient_encodings=(args.gradient_encoding,),
                mpi_progress=args.mpi_progress,
            ),
            seed=1,
        )
        self.skew: Any = None

    @property
    def idle_s(self) -> float:  # type: ignore[override]
        """Seconds waited for the other rank so far."""
        return self._pipeline.idle_s

    @property
    def sent_bytes(self) -> int:
        """Bytes sent to the other rank so far."""
        return self._pipeline.sent_bytes

    def run(self, steps: int) -> None:
        """Train that many steps, and take what is still to come back."""
        super().run(steps)
        self._pipeline.drain()

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        """Train on one batch."""
        if self.skew is not None:
            time.sleep(self.skew(self.steps_done, self._pipeline.rank))
        self._pipeline.step(inputs, targets)


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

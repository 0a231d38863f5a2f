"""Train a small language model once, cut into stages: a run of ``language_model.py``.

    mpirun -np 2 python benchmarks/accuracy/language_model_run.py --method delayed --summary s.json

Writes its loss on the last tenth of the text.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from knet_hvd.data.dataset import Split, cross_entropy
from knet_hvd.data.text import WINDOW, load_text
from knet_hvd.models.transformer import transformer
from knet_hvd.pipeline import Backprop, Delayed, Pipeline

CUTS: dict[int, list[int]] = {1: [], 2: [3], 4: [2, 3, 4]}
"""Blocks before each cut: embedding and head go with the nearest layer."""
METHODS = {
    "backprop": (Backprop(), 4),
    "delayed": (Delayed(recompute=False), 1),
    "delayed-predicted": (Delayed(recompute=False, predict_weights=True), 1),
    "delayed-microbatches": (Delayed(recompute=False), 4),
    "delayed-predicted-microbatches": (
        Delayed(recompute=False, predict_weights=True, count_arrived=False),
        4,
    ),
    "delayed-arrived-microbatches": (Delayed(recompute=False, predict_weights=True), 4),
    "delayed-arrived-8microbatches": (Delayed(recompute=False, predict_weights=True), 8),
    "delayed-arrived-16microbatches": (Delayed(recompute=False, predict_weights=True), 16),
}
"""Decoupler and microbatches of each method."""
OPTIMIZERS = ("adamw", "muon")
_WARM_UP_STEPS = 50


def optimizers(
    args: argparse.Namespace, vocabulary: int, parameters: list[nn.Parameter]
) -> list[torch.optim.Optimizer]:
    """Return AdamW for all parameters, or Muon for the matrices of the layers and AdamW."""
    inner = [each for each in parameters if each.dim() == 2 and _is_of_a_layer(each, vocabulary)]
    if args.optimizer == "adamw":
        inner = []
    chosen = {id(each) for each in inner}
    rest = [each for each in parameters if id(each) not in chosen]
    rate = args.learning_rate * (args.rest_factor if args.optimizer == "muon" else 1.0)
    made: list[torch.optim.Optimizer] = []
    if inner:
        made.append(
            torch.optim.Muon(
                inner,
                lr=args.learning_rate,
                weight_decay=0.01,
                nesterov=args.nesterov,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return [*made, torch.optim.AdamW(rest, lr=rate, betas=(args.beta1, 0.999))]


def _is_of_a_layer(matrix: Tensor, vocabulary: int) -> bool:
    return vocabulary not in matrix.shape and WINDOW not in matrix.shape


def factor(step: int, steps: int) -> float:
    """Return the factor on the learning rate: a short warm-up, then half a cosine."""
    warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def batches(split: Split, batch_size: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield whole batches without end, in another order in every epoch."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(split), generator=generator)
        for rows in order[: len(order) // batch_size * batch_size].split(batch_size):
            yield split.inputs[rows], split.targets[rows]


def in_order(split: Split, batch_size: int = 64) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all samples."""
    for rows in torch.arange(len(split)).split(batch_size):
        yield split.inputs[rows], split.targets[rows]


def train(args: argparse.Namespace) -> None:
    """Train this rank's stage, evaluate, and write the summary on rank 0."""
    data = load_text()
    decoupler, microbatches = METHODS[args.method]
    vocabulary = data.num_classes or 0
    pipeline = Pipeline(
        partial(transformer, (WINDOW,), vocabulary),
        example=torch.zeros(1, WINDOW, dtype=torch.int64),
        loss=cross_entropy,
        optimizer=partial(optimizers, args, vocabulary),
        decoupler=decoupler,
        microbatches=microbatches,
        cuts=CUTS[int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1"))],
        precision=args.precision,
        seed=args.seed,
        deterministic=True,
    )
    rates = partial(factor, steps=args.steps)
    own = pipeline.optimizer
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(each, rates)
        for each in (own if isinstance(own, Sequence) else [own])
    ]
    start = time.perf_counter()
    for _, (inputs, targets) in zip(
        range(args.steps), batches(data.train, args.batch_size, args.seed), strict=False
    ):
        pipeline.step(inputs, targets)
        for each in schedulers:
            each.step()
    seconds = time.perf_counter() - start
    loss = pipeline.evaluate(in_order(data.test))
    if pipeline.rank == 0:
        args.summary.write_text(json.dumps({"test_loss": loss, "train_seconds": seconds}))


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all runs of a campaign have in common."""
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=32, help="sequences of 64 characters")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--rest-factor", type=float, default=1.0, help="on AdamW's rate by Muon")
    parser.add_argument("--beta1", type=float, default=0.9, help="of AdamW")
    parser.add_argument(
        "--nesterov", action=argparse.BooleanOptionalAction, default=True, help="of Muon"
    )
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")


def main() -> None:
    """Parse the command line, and train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", choices=list(METHODS), default="backprop")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--summary", type=Path, required=True)
    add_run_arguments(parser)
    train(parser.parse_args())


if __name__ == "__main__":
    main()

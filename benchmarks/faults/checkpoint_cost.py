"""Measure what checkpoints cost: training with and without them, in turns.

    python benchmarks/faults/checkpoint_cost.py --data cifar10 --data-dir DIR
    python benchmarks/faults/checkpoint_cost.py --model mlp --steps 500 --every 20

Runs jobs/train_data_parallel.py on two ranks of one thread, by turns without
checkpoints and with one every so many steps, on the same data from the same seed.
Prints JSON: seconds of the training steps of each run, and by how much the runs with
checkpoints took longer (median, lowest and highest of the rounds), as a share; and the
bytes of a checkpoint. The two runs of a round must end with the same parameters.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.accuracy.training_runs import run_job
from knet_hvd.checkpoint import CheckpointStore

JOB = "train_data_parallel.py"
RANKS = 2


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all rounds and compare them."""
    plain, saving, sizes = [], [], []
    for number in range(args.rounds):
        first = run_job(JOB, RANKS, arguments(args), folder / f"plain-{number}.json")
        checkpoints = folder / f"checkpoints-{number}"
        flags = ["--checkpoint-dir", str(checkpoints)]
        flags += ["--checkpoint-every", str(args.every)]
        summary = folder / f"saving-{number}.json"
        second = run_job(JOB, RANKS, [*arguments(args), *flags], summary)
        if first["parameters_sha256"] != second["parameters_sha256"]:
            raise RuntimeError("checkpoints changed what was computed")
        plain.append(first["train_seconds"])
        saving.append(second["train_seconds"])
        sizes.append(checkpoint_bytes(checkpoints))
    shares = [b / a - 1 for a, b in zip(plain, saving, strict=True)]
    return {
        "seconds_without": plain,
        "seconds_with": saving,
        "longer_by": {"median": median(shares), "lowest": min(shares), "highest": max(shares)},
        "checkpoint_bytes": max(sizes),
    }


def arguments(args: argparse.Namespace) -> list[str]:
    """Return what all runs have in common."""
    result = ["--model", args.model, "--width", str(args.width), "--data", args.data]
    if args.data_dir is not None:
        result += ["--data-dir", str(args.data_dir)]
    result += ["--batch-size", str(args.batch_size), "--max-steps", str(args.steps)]
    return [*result, "--epochs", "100000", "--optimizer", "momentum"]


def checkpoint_bytes(folder: Path) -> int:
    """Return the bytes of the latest checkpoint's files."""
    store = CheckpointStore(folder)
    files = store.path(store.steps()[0]).iterdir()
    return sum(file.stat().st_size for file in files)


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--batch-size", type=int, default=32, help="a rank")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--every", type=int, default=50, help="steps")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="knet_hvd_checkpoint_cost_") as folder:
        results = measure(args, Path(folder))
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    print(json.dumps({**settings, **results}, indent=2))


if __name__ == "__main__":
    main()

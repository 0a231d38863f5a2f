"""Time a pipeline with a slow rank: placed by measurement, and cut into equal parts.

    python benchmarks/pipeline/placement.py --model vgg16 --width 0.5 --slow-rank 1:3.0

Runs jobs/train_pipeline.py under mpirun, in turns with `--placement equal` (stages of
equally many blocks, in the order of the ranks) and with `--placement measured`. The
slow rank sleeps for the rest of the time that everything takes it. Prints JSON: samples
a second (median of the rounds, without measuring and evaluation), how many times faster
the measured placement is (median, lowest and highest of the rounds' ratios), and for
each placement the blocks and the rank of every stage in the last round.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.accuracy.training_runs import run_job

PLACEMENTS = ("equal", "measured")


def measure(args: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Run all rounds; return the summaries of each placement."""
    common = ["--model", args.model, "--width", str(args.width)]
    common += ["--decoupler", args.decoupler, "--batch-size", str(args.batch_size)]
    common += ["--max-steps", str(args.steps), "--epochs", "1000"]
    if args.slow_rank:
        common += ["--slow-rank", args.slow_rank]
    summaries: dict[str, list[dict[str, Any]]] = {name: [] for name in PLACEMENTS}
    for number in range(args.rounds):
        for name, results in summaries.items():
            file = folder / f"{name}-round{number}.json"
            flags = [*common, "--placement", name]
            results.append(run_job("train_pipeline.py", args.ranks, flags, file))
    return summaries


def summarize(summaries: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return medians, and the ratio of the two placements by rounds."""
    rates = {
        name: [summary["samples_per_second"] for summary in results]
        for name, results in summaries.items()
    }
    pairs = zip(rates["measured"], rates["equal"], strict=True)
    ratios = [measured / equal for measured, equal in pairs]
    placements = {
        name: {
            "samples_per_s": round(median(rates[name]), 1),
            "stages": [
                {key: stage[key] for key in ("rank", "blocks", "idle_fraction")}
                for stage in results[-1]["stages"]
            ],
        }
        for name, results in summaries.items()
    }
    faster = {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {"times_faster": {key: round(value, 3) for key, value in faster.items()}, **placements}


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--decoupler", default="local")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--slow-rank", default="1:3.0", help="'' for none")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        summaries = measure(args, Path(folder))
    print(json.dumps({**vars(args), **summarize(summaries)}, indent=2))


if __name__ == "__main__":
    main()

"""Measure the accuracy of every decoupler against locked backpropagation.

    python benchmarks/accuracy/pipeline.py mnist4 --data-dir DIR --out runs/pipeline
    python benchmarks/accuracy/pipeline.py vgg16 --width 0.125 --stages 2 4
    python benchmarks/accuracy/pipeline.py vgg16 --data cifar10 --seeds 1 --width 0.5
    python benchmarks/accuracy/pipeline.py mnist4 --stages 2 --replicas 2

Runs jobs/train_pipeline.py under mpirun with one rank a stage, or as many as --replicas
says, which share the batch and exchange ternary gradients. All cells have the same
seeds, and run one after the other; a run whose summary is already in --out is not
repeated, so that an interrupted campaign continues. Prints JSON, or with --table
Markdown: for each cell the training and test accuracy, mean and standard deviation over
the seeds, and the gap of the test accuracy to backprop in points.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.accuracy.training_runs import gap_points, run_job, spread

JOB = "train_pipeline.py"
# Convolutions as published, 5x5 with 128 channels, cost many times the network.
SMALL_SYNTHESIZER = ["--decoupler.hidden-units", "64"]
SMALL_SYNTHESIZER += ["--decoupler.kernel-size", "3"]
PUBLISHED_SYNTHESIZER = ["--decoupler.no-scale-by-quality"]
METHODS = {
    "backprop": ["--decoupler", "backprop"],
    "synthetic": ["--decoupler", "synthetic", *SMALL_SYNTHESIZER],
    "synthetic-published": ["--decoupler", "synthetic", *PUBLISHED_SYNTHESIZER],
    "synthetic-true": [
        *("--decoupler", "synthetic", "--decoupler.targets", "true"),
        *SMALL_SYNTHESIZER,
    ],
    "synthetic-corrected": [
        *("--decoupler", "synthetic", "--decoupler.targets", "corrected"),
        *SMALL_SYNTHESIZER,
    ],
    "conditioned": ["--decoupler", "conditioned", *SMALL_SYNTHESIZER],
    "conditioned-published": ["--decoupler", "conditioned", *PUBLISHED_SYNTHESIZER],
    "conditioned-true": [
        *("--decoupler", "conditioned", "--decoupler.targets", "true"),
        *SMALL_SYNTHESIZER,
    ],
    "local": ["--decoupler", "local"],
    "predsim": ["--decoupler", "local", "--decoupler.loss", "predsim"],
    "delayed": ["--decoupler", "delayed"],
    "delayed-predicted": ["--decoupler", "delayed", "--decoupler.predict-weights"],
    "delayed-stashed-predicted-microbatches": [
        *("--decoupler", "delayed", "--decoupler.no-recompute", "--decoupler.predict-weights"),
        *("--microbatches", "4"),
    ],
    "delayed-stashed": ["--decoupler", "delayed", "--decoupler.no-recompute"],
    "delayed-stashed-predicted": [
        *("--decoupler", "delayed", "--decoupler.no-recompute", "--decoupler.predict-weights")
    ],
}
SPLITS = ("train_accuracy", "test_accuracy")
Accuracies = dict[str, dict[str, list[float]]]


def common_arguments(args: argparse.Namespace) -> list[str]:
    """Return what all runs have in common."""
    arguments = ["--model", args.model, "--width", str(args.width)]
    arguments += ["--data", args.data, "--data-dir", str(args.data_dir)]
    batch_size = args.batch_size // args.replicas
    arguments += ["--epochs", str(args.epochs), "--batch-size", str(batch_size)]
    arguments += ["--replicas", str(args.replicas)]
    arguments += ["--learning-rate", str(args.learning_rate)]
    arguments += ["--learning-rate-schedule", "cosine"]
    arguments += ["--precision", args.precision]
    if args.data == "cifar10":
        arguments.append("--augment")
    return arguments


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run all cells, seeds outermost so that early results cover every cell."""
    cells: dict[int, Accuracies] = {}
    for seed in range(args.seeds):
        for stages in args.stages:
            for method in args.methods:
                name = f"{cell_name(args, stages, method)}-seed{seed}.json"
                arguments = [*common_arguments(args), *METHODS[method]]
                arguments += ["--stages", str(stages), "--seed", str(seed)]
                ranks = stages * args.replicas
                summary = run_job(JOB, ranks, arguments, args.out / name)
                cell = cells.setdefault(stages, {}).setdefault(method, {})
                for split in SPLITS:
                    cell.setdefault(split, []).append(summary[split])
    return {f"{stages} stages": describe(cell) for stages, cell in cells.items()}


def cell_name(args: argparse.Namespace, stages: int, method: str) -> str:
    """Return a name that tells the cell from others in the same folder."""
    parts = [args.data, args.model]
    if args.width != 1:
        parts.append(f"width{args.width}")
    if args.precision != "fp32":
        parts.append(args.precision)
    parts.append(f"{stages}stages")
    if args.replicas > 1:
        parts.append(f"{args.replicas}replicas")
    return "-".join([*parts, method, f"{args.epochs}epochs"])


def describe(methods: Accuracies) -> dict[str, Any]:
    """Return mean, standard deviation and the gap to backprop in points."""
    result: dict[str, Any] = {}
    for method, splits in methods.items():
        entry: dict[str, Any] = {s: spread(values) for s, values in splits.items()}
        if method != "backprop" and "backprop" in methods:
            reference = methods["backprop"]["test_accuracy"]
            entry["gap_points"] = gap_points(splits["test_accuracy"], reference)
        result[method] = entry
    return result


def table(model: str, results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    rows = [
        f"| {model} | stages | training accuracy % | test accuracy % | gap in points |",
        "|---|---|---|---|---|",
    ]
    for stages, methods in results.items():
        for method, entry in methods.items():
            train, test = (
                f"{entry[split]['mean']:.2f} ± {entry[split]['stdev']:.2f}" for split in SPLITS
            )
            gap = f"{entry['gap_points']:+.2f}" if "gap_points" in entry else ""
            number = stages.removesuffix(" stages")
            rows.append(f"| {method} | {number} | {train} | {test} | {gap} |")
    return "\n".join(rows)


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print JSON or a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="mnist4, mnist8, vgg16, ...")
    parser.add_argument("--data", choices=["mnist", "cifar10"], default="mnist")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for summaries")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--stages", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--replicas", type=int, default=1, help="of each stage")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64, help="of all replicas")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=list(METHODS),
        default=["backprop", "synthetic", "conditioned", "local", "delayed"],
    )
    parser.add_argument("--table", action="store_true", help="print Markdown")
    args = parser.parse_args(command_line)
    if args.batch_size % args.replicas:
        parser.error(f"--batch-size {args.batch_size} is not a multiple of --replicas")
    args.out.mkdir(parents=True, exist_ok=True)
    results = measure(args)
    print(table(args.model, results) if args.table else json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

"""Measure test accuracy with fp32 and ternary gradients on the same seeds.

    python benchmarks/accuracy/data_parallel.py lenet --data-dir DIR --out runs/accuracy
    python benchmarks/accuracy/data_parallel.py cifarnet --data-dir DIR --out runs/accuracy

Runs jobs/train_data_parallel.py under mpirun, one run after the other; a run whose
summary is already in --out is not repeated, so that an interrupted campaign continues.
Prints JSON: every cell with its accuracies, their mean and standard deviation, and the
gap in points.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.accuracy.training_runs import gap_points, run_job, spread

JOB = "train_data_parallel.py"
METHODS = {
    "fp32": ["--compression", "none"],
    "ternary": ["--compression", "ternary"],
    "ternary-scale-groups": ["--compression", "ternary", "--ternary.scale-group-size", "512"],
    "ternary-feedback": ["--compression", "ternary", "--ternary.error-feedback"],
    "ternary-allreduce": ["--compression", "ternary", "--exchange", "allreduce"],
}


def lenet_cells(args: argparse.Namespace) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the cells of TernGrad's LeNet experiment (section 5.1): total batch 64."""
    common = ["--data", "mnist", "--model", "lenet", "--weight-decay", "5e-4"]
    common += ["--learning-rate-schedule", "polynomial", "--average-decay", "0.9999"]
    common += ["--inputs", "unit"]  # as in Caffe; standardized, SGD at 0.1 diverges
    common += ["--epochs", "100", "--max-steps", str(args.steps)]
    for ranks in args.ranks:
        for optimizer, rate in (("momentum", "0.01"), ("sgd", "0.1")):
            settings = ["--optimizer", optimizer, "--learning-rate", rate]
            settings += ["--batch-size", str(64 // ranks)]
            yield f"lenet-{optimizer}-{ranks}ranks", ranks, common + settings


def cifarnet_cells(args: argparse.Namespace) -> Iterator[tuple[str, int, list[str]]]:
    """Yield the cell of TernGrad's CifarNet experiment: Adam 2e-4, 64 images a rank."""
    settings = ["--data", "cifar10", "--model", "cifarnet", "--optimizer", "adam"]
    settings += ["--learning-rate", "2e-4", "--batch-size", "64", "--augment"]
    settings += ["--crop-size", "24", "--precision", args.precision]
    settings += ["--learning-rate-schedule", "polynomial", "--average-decay", "0.9999"]
    for ranks in args.ranks:
        yield (f"cifarnet-adam-{ranks}ranks", ranks, [*settings, "--epochs", str(args.epochs)])


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Run all cells, seeds outermost so that early results cover every cell."""
    cells = list({"lenet": lenet_cells, "cifarnet": cifarnet_cells}[args.what](args))
    accuracies: dict[str, dict[str, list[float]]] = {}
    for seed in range(args.seeds):
        for cell, ranks, settings in cells:
            for method in args.methods:
                name = f"{cell}-{method}-seed{seed}"
                arguments = [*settings, *METHODS[method], "--seed", str(seed)]
                arguments += ["--data-dir", str(args.data_dir)]
                summary = run_job(JOB, ranks, arguments, args.out / f"{name}.json")
                values = accuracies.setdefault(cell, {}).setdefault(method, [])
                values.append(summary["test_accuracy"])
    return {cell: describe(methods) for cell, methods in accuracies.items()}


def describe(methods: dict[str, list[float]]) -> dict[str, object]:
    """Return mean, standard deviation and the gap to fp32 in points."""
    result: dict[str, object] = {}
    for method, values in methods.items():
        entry = spread(values)
        if method != "fp32" and "fp32" in methods:
            entry["gap_points"] = gap_points(values, methods["fp32"])
        result[method] = entry
    return result


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["lenet", "cifarnet"])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=10_000, help="of lenet")
    parser.add_argument("--epochs", type=int, default=5, help="of cifarnet")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="of cifarnet")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["fp32", "ternary"])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measure(args), indent=2))


if __name__ == "__main__":
    main()

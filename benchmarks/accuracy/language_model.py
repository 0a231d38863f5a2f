"""Measure what late gradients cost a language model, with AdamW and with Muon.

    python benchmarks/accuracy/language_model.py --out runs/text
    python benchmarks/accuracy/language_model.py --out runs/text --stages 2 --methods delayed

A transformer of 1.28 M parameters learns English text character by character, cut into
stages with ``knet_hvd.pipeline.Pipeline``; Muon updates the matrices between the layers,
AdamW the rest, both at the same rate. All cells have the same batches and as many steps.
They run one after the other, and a run whose summary is already in --out is not repeated,
so that an interrupted campaign continues. Prints JSON, or with --table Markdown: the mean
loss in nats a character on the last tenth of the text, which nothing is chosen by, and how
far it is above that of locked backpropagation.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.accuracy.language_model_run import CUTS, METHODS, OPTIMIZERS, add_run_arguments
from benchmarks.accuracy.training_runs import run_script

RUN = Path(__file__).with_name("language_model_run.py")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run all cells, seeds outermost so that early results cover every cell."""
    found: dict[str, list[float]] = {}
    common = ["--steps", str(args.steps), "--batch-size", str(args.batch_size)]
    common += ["--learning-rate", str(args.learning_rate), "--precision", args.precision]
    for seed in range(args.seeds):
        for optimizer in args.optimizers:
            for stages in args.stages:
                for method in args.methods:
                    cell = f"{method}-{stages}stages-{optimizer}"
                    flags = ["--method", method, "--optimizer", optimizer]
                    flags += ["--seed", str(seed), *common]
                    name = args.out / f"{cell}-{args.steps}steps-seed{seed}.json"
                    summary = run_script(RUN, stages, flags, name)
                    found.setdefault(cell, []).append(summary["test_loss"])
    return {cell: describe(cell, found) for cell in found}


def describe(cell: str, found: dict[str, list[float]]) -> dict[str, Any]:
    """Return the mean and the spread of a cell, and the gap to locked backpropagation."""
    losses = found[cell]
    reference = found.get("-".join(["backprop", *cell.split("-")[-2:]]))
    result: dict[str, Any] = {
        "losses": [round(each, 4) for each in losses],
        "mean": round(statistics.mean(losses), 4),
        "stdev": round(statistics.stdev(losses), 4) if len(losses) > 1 else 0.0,
    }
    if reference is not None and reference is not losses:
        result["gap"] = round(statistics.mean(losses) - statistics.mean(reference), 4)
    return result


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    rows = ["| method | stages | optimizer | nats a character | gap |", "|---|---|---|---|---|"]
    for cell, entry in results.items():
        method, stages, optimizer = cell.rsplit("-", 2)
        gap = f"{entry['gap']:+.3f}" if "gap" in entry else ""
        loss = f"{entry['mean']:.3f} ± {entry['stdev']:.3f}"
        rows.append(f"| {method} | {stages[0]} | {optimizer} | {loss} | {gap} |")
    return "\n".join(rows)


def main() -> None:
    """Parse the command line, measure, print JSON or a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/text"), help="folder for summaries")
    parser.add_argument("--stages", type=int, nargs="+", choices=list(CUTS), default=[2, 4])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=OPTIMIZERS)
    parser.add_argument("--seeds", type=int, default=3)
    add_run_arguments(parser)
    parser.add_argument("--table", action="store_true", help="print Markdown")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    results = measure(args)
    print(table(results) if args.table else json.dumps(results, indent=2))


if __name__ == "__main__":
    main()

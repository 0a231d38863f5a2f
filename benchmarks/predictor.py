"""Compare the cost model's predictions with measured exchanges, cell by cell.

    sudo python benchmarks/predictor.py --hosts 2 4 --rates 1gbit 10gbit

On every network of hosts (slow_hosts.sh, one rank with one thread on each), for the
gradients of LeNet, ResNet-50, AlexNet and VGG-16: times exchanges, and calibrates as
compression="auto" does, on gradients of other shapes. It does so between two halves of
the rounds, so that a slow drift of the machine's speed hits both alike. Gradients are
complete when the clock starts, so that a step is an exchange. Prints JSON, or with
--table Markdown: predicted and measured milliseconds of every cell, median and worst
deviation, and whether the advice to compress was right wherever that matters by more
than 10 %.
"""

import argparse
import gc
import itertools
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import slow_network
from benchmarks.gradient_sets import GRADIENT_SETS, num_values

METHODS = ("fp32", "allgather", "alltoall")
MATTERS = 1.1
MIN_VALUES = 512


def measure_ranks(args: argparse.Namespace) -> None:
    """Run on every host: calibrate, predict, measure; rank 0 reports all cells."""
    import horovod.torch as hvd

    from benchmarks.exchange_methods import GradientSet, make_method
    from knet_hvd.data_parallel.calibration import calibrate
    from knet_hvd.performance import advise

    hvd.init()
    cells = []
    for network in args.networks:
        shapes = GRADIENT_SETS[network]()
        gradients = GradientSet(shapes)
        methods = {name: make_method(name, gradients) for name in METHODS}
        half = -(-args.rounds // 2)
        samples = exchange_times(methods, half)
        start = time.perf_counter()
        model = calibrate()
        calibration_s = time.perf_counter() - start
        for name, more in exchange_times(methods, half).items():
            samples[name] += more
        # Tensors that cross on their own, as compression="auto" counts them.
        num_tensors = sum(math.prod(shape) >= MIN_VALUES for _, shape in shapes)
        size = (num_values(shapes), num_tensors)
        advice = advise(model, *size)
        cells.append(
            {
                "network": network,
                "calibration_s": calibration_s,
                "predicted_s": {m: model.exchange_s(m, *size) for m in METHODS},
                "measured_s": {m: statistics.median(samples[m]) for m in METHODS},
                "advises_compression": advice.compresses,
                "advice": str(advice),
            }
        )
        del gradients, methods
        gc.collect()
    if hvd.rank() == 0:
        slow_network.report(cells)


def exchange_times(methods: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each method in each round, after one to warm up."""
    samples: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(1 + rounds):
        for name, method in methods.items():
            elapsed_s = exchange_s(method)
            if number:
                samples[name].append(elapsed_s)
    return samples


def exchange_s(method: Any) -> float:
    """Return the seconds of one exchange on the slowest rank."""
    import horovod.torch as hvd
    import torch

    method.prepare()
    hvd.allreduce(torch.zeros(1), name="start")
    start = time.perf_counter()
    method.exchange()
    own = torch.tensor([time.perf_counter() - start], dtype=torch.float64)
    return float(hvd.allreduce(own, op=hvd.Max, name="slowest"))


def judge(cell: dict[str, Any]) -> dict[str, Any]:
    """Add a cell's deviations, and whether its advice was right."""
    predicted, measured = cell["predicted_s"], cell["measured_s"]
    deviation = {m: predicted[m] / measured[m] - 1 for m in predicted}
    speedup = measured["fp32"] / min(measured[m] for m in METHODS if m != "fp32")
    matters = max(speedup, 1 / speedup) > MATTERS
    right = cell["advises_compression"] == (speedup > 1) if matters else None
    return {**cell, "deviation": deviation, "speedup": speedup, "advice_right": right}


def summarize(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the cells and what they show together."""
    judged = [judge(cell) for cell in cells]
    deviations = [abs(d) for cell in judged for d in cell["deviation"].values()]
    return {
        "num_predictions": len(deviations),
        "median_deviation": statistics.median(deviations),
        "worst_deviation": max(deviations),
        "advice_wrong": sum(cell["advice_right"] is False for cell in judged),
        "advice_matters": sum(cell["advice_right"] is not None for cell in judged),
        "cells": judged,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Return the cells as Markdown."""
    columns = ["hosts", "rate", "network", *METHODS, "fastest ternary", "advice"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "--:|" * len(columns)]
    for cell in cells:
        times = [
            f"{1e3 * cell['predicted_s'][m]:,.1f} / {1e3 * cell['measured_s'][m]:,.1f} "
            f"({100 * cell['deviation'][m]:+.0f} %)"
            for m in METHODS
        ]
        verdict = {True: "right", False: "wrong", None: "within 10 %"}
        choice = "compress" if cell["advises_compression"] else "fp32"
        row = [str(cell["hosts"]), cell["rate"], cell["network"], *times]
        row += [f"{cell['speedup']:.2f}×", f"{choice}: {verdict[cell['advice_right']]}"]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure every cell, print JSON or a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(GRADIENT_SETS)
    parser.add_argument("--hosts", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rates", nargs="+", default=["1gbit", "10gbit"])
    parser.add_argument("--networks", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=6, help="half of them before")
    parser.add_argument("--table", action="store_true", help="Markdown, not JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure_ranks(args)
        return
    arguments = ["--worker", "--rounds", str(args.rounds)]
    arguments += ["--networks", *args.networks]
    cells: list[dict[str, Any]] = []
    for count, rate in itertools.product(args.hosts, args.rates):
        print(f"{count} hosts, {rate}", file=sys.stderr, flush=True)
        with slow_network.hosts(count, rate):
            result: Any = slow_network.run_worker(__file__, arguments)
        cells += [{"hosts": count, "rate": rate, **cell} for cell in result]
    summary = summarize(cells)
    if args.table:
        print(table(summary.pop("cells")), "", sep="\n")
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()

"""Compare the cost model's predictions with measured exchanges, cell by cell.

    sudo python benchmarks/exchange/predictor.py --hosts 2 4 --rates 1gbit 10gbit

On every network of hosts (slow_hosts.sh, one rank with one thread on each), for the
gradients of LeNet, ResNet-50, AlexNet and VGG-16: times exchanges, and calibrates as
compression="auto" does, on gradients of other shapes. The two take turns, because a
shared machine's speed changes by more than what is asked here: a calibration is held
against the exchanges right before and after it, and a cell's deviation is the median of
these. Single calibrations, which is what a user has, and the medians of all predictions
and measurements are compared as well. Gradients are complete when the clock starts,
so that a step is an exchange. Prints JSON, or with --table Markdown: predicted and
measured milliseconds of every cell, median and worst deviation, whether the advice to
compress (fp16 or ternary) was right wherever that matters by more than 10 %, and how
much longer the advised method took than the fastest one.
"""

import argparse
import gc
import itertools
import json
import math
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network
from benchmarks.codec.gradient_sets import GRADIENT_SETS, num_values

METHODS = ("fp32", "fp16", "allgather", "alltoall")
MATTERS = 1.1
MIN_VALUES = 512
TURN_S, MOST_ROUNDS = 0.5, 20  # small exchanges are noisy, and cheap to repeat


def measure_ranks(args: argparse.Namespace) -> None:
    """Run on every host: measure every network; rank 0 reports all cells."""
    import horovod.torch as hvd

    hvd.init()
    cells = []
    for network in args.networks:
        cells.append(measure_network(network, args.rounds, args.calibrations))
        gc.collect()
    if hvd.rank() == 0:
        slow_network.report(cells)


def measure_network(network: str, rounds: int, calibrations: int) -> dict[str, Any]:
    """Measure a network's exchanges and calibrate, in turns."""
    from benchmarks.exchange.methods import GradientSet, make_method
    from knet_hvd.collectives.horovod import HorovodCollectives
    from knet_hvd.data_parallel.calibration.calibrate import calibrate, unfused_values
    from knet_hvd.performance import advise

    shapes = GRADIENT_SETS[network]()
    gradients = GradientSet(shapes)
    methods = {name: make_method(name, gradients) for name in METHODS}
    # Tensors that cross on their own, as compression="auto" counts them.
    num_tensors = sum(math.prod(shape) >= MIN_VALUES for _, shape in shapes)
    sizes = [math.prod(shape) for _, shape in shapes]
    ranks = HorovodCollectives()
    size = (num_values(shapes), num_tensors, unfused_values(sizes, ranks.fusion_bytes))
    exchange_times(methods, 1)  # buffers and connections are made
    round_s = sum(times[0] for times in exchange_times(methods, 1).values())
    rounds = max(rounds, min(MOST_ROUNDS, math.ceil(TURN_S / round_s)))
    samples = exchange_times(methods, rounds)
    predictions: dict[str, list[float]] = {name: [] for name in METHODS}
    advised = []
    for _ in range(calibrations):
        model = calibrate(ranks)
        for name in METHODS:
            predictions[name].append(model.exchange_s(name, *size))
        advised.append(advise(model, *size).method)
        for name, more in exchange_times(methods, rounds).items():
            samples[name] += more
    return {
        "network": network,
        "predicted_s": {m: statistics.median(predictions[m]) for m in METHODS},
        "measured_s": {m: statistics.median(samples[m]) for m in METHODS},
        "predictions_s": predictions,
        "measurements_s": samples,
        "advised": advised,
    }


def exchange_times(methods: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each method in each round."""
    samples: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            samples[name].append(exchange_s(method))
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
    """Add a cell's deviations, and how much of its advice was right."""
    predicted, measured = cell["predicted_s"], cell["measured_s"]
    fastest = min((m for m in METHODS if m != "fp32"), key=measured.__getitem__)
    samples = cell["measurements_s"]
    speedup = statistics.median(
        fp32 / own for fp32, own in zip(samples["fp32"], samples[fastest], strict=True)
    )
    advised = cell["advised"]
    best_s = min(measured.values())
    singles = {m: turn_deviations(cell, m) for m in METHODS}
    return {
        **cell,
        "deviation": {m: statistics.median(singles[m]) for m in METHODS},
        "deviation_of_medians": {m: predicted[m] / measured[m] - 1 for m in METHODS},
        "single_deviations": [value for m in METHODS for value in singles[m]],
        "speedup": speedup,
        "advice_matters": max(speedup, 1 / speedup) > MATTERS,
        "advice_right": sum((m != "fp32") == (speedup > 1) for m in advised),
        "advised_over_fastest": [measured[method] / best_s for method in advised],
    }


def turn_deviations(cell: dict[str, Any], method: str) -> list[float]:
    """Return each prediction's deviation from the exchanges on both sides of it."""
    predictions, samples = cell["predictions_s"][method], cell["measurements_s"][method]
    rounds = len(samples) // (len(predictions) + 1)
    return [
        prediction / statistics.median(samples[i * rounds : (i + 2) * rounds]) - 1
        for i, prediction in enumerate(predictions)
    ]


def summarize(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the cells and what they show together."""
    judged = [judge(cell) for cell in cells]
    deviations = [abs(d) for cell in judged for d in cell["deviation"].values()]
    of_medians = [abs(d) for cell in judged for d in cell["deviation_of_medians"].values()]
    singles = [abs(d) for cell in judged for d in cell["single_deviations"]]
    matters = [cell for cell in judged if cell["advice_matters"]]
    given = sum(len(cell["advised"]) for cell in matters)
    excess = [ratio for cell in judged for ratio in cell["advised_over_fastest"]]
    return {
        "num_predictions": len(deviations),
        "median_deviation": statistics.median(deviations),
        "worst_deviation": max(deviations),
        "medians_median_deviation": statistics.median(of_medians),
        "medians_worst_deviation": max(of_medians),
        "single_calibrations_median_deviation": statistics.median(singles),
        "single_calibrations_worst_deviation": max(singles),
        "cells_where_advice_matters": len(matters),
        "advice_given_there": given,
        "advice_wrong_there": given - sum(cell["advice_right"] for cell in matters),
        "worst_advised_over_fastest": max(excess),
        "cells": judged,
    }


def table(cells: list[dict[str, Any]]) -> str:
    """Return the cells as Markdown."""
    columns = ["hosts", "rate", "network", *METHODS, "fastest of the others", "advice"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "--:|" * len(columns)]
    for cell in cells:
        times = [
            f"{1e3 * cell['predicted_s'][m]:,.1f} / {1e3 * cell['measured_s'][m]:,.1f} "
            f"({100 * cell['deviation'][m]:+.0f} %)"
            for m in METHODS
        ]
        counts = Counter(cell["advised"]).most_common()
        choice = ", ".join(f"{number} {method}" for method, number in counts)
        if not cell["advice_matters"]:
            choice += " (within 10 %)"
        row = [str(cell["hosts"]), cell["rate"], cell["network"], *times]
        row += [f"{cell['speedup']:.2f}×", choice]
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
    parser.add_argument("--rounds", type=int, default=2, help="per turn, at least")
    parser.add_argument("--calibrations", type=int, default=5, help="turns of it")
    parser.add_argument("--table", action="store_true", help="Markdown, not JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure_ranks(args)
        return
    arguments = ["--worker", "--rounds", str(args.rounds)]
    arguments += ["--calibrations", str(args.calibrations)]
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

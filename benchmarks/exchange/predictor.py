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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network
from benchmarks.codec.gradient_sets import GRADIENT_SETS, num_values
from benchmarks.exchange.predictor_summary import METHODS, summarize, table

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

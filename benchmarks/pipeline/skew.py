"""Time pipelines of two hosts on a slow network, with and without computation skew.

    sudo python benchmarks/pipeline/skew.py
    sudo python benchmarks/pipeline/skew.py --rates unlimited 100mbit --mpi-progress off

Starts two hosts with slow_hosts.sh, one rank with one thread on each. Skew is time that
a rank sleeps in a step, as if its computation took longer: `random` adds --skew-ms to
one of the two ranks, drawn again each step; `first` and `last` always add it to the same
rank. Rounds go through all methods and skews in turn.

Prints JSON for each rate and method: samples a second without skew, bytes a step that
both ranks sent (frames; headers of the network not counted), and for each skew the
share of the throughput that it costs: the median of the rounds, and that of the best
rounds.
"""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network
from benchmarks.pipeline.speed import (
    OURS,
    add_problem_flags,
    parse_problem,
    time_round,
    worker_arguments,
)

SKEWS = ["random", "first", "last"]


def random_skew(seconds: float, step: int, rank: int) -> float:
    """Return what a rank adds to a step: all on one rank, which is drawn each step."""
    return seconds if random.Random(step).randrange(2) == rank else 0.0


def fixed_skew(seconds: float, slow: int, step: int, rank: int) -> float:
    """Return what a rank adds to a step: always the same rank."""
    return seconds if rank == slow else 0.0


def skews(seconds: float) -> dict[str, Any]:
    """Return the ways to add so much time to a step, by name."""
    return {
        "none": None,
        "random": partial(random_skew, seconds),
        "first": partial(fixed_skew, seconds, 0),
        "last": partial(fixed_skew, seconds, 1),
    }


def measure_ranks(args: argparse.Namespace) -> None:
    """Run on both hosts: train by each method and skew in turn."""
    from benchmarks.pipeline.methods import make_method
    from benchmarks.pipeline.problem import Problem
    from knet_hvd.comm import World

    world = World(timeout_s=120)
    problem = Problem.of(args)
    methods: dict[str, Any] = {n: make_method(n, problem, world.rank, "eth0") for n in args.methods}
    added = skews(1e-3 * args.skew_ms)
    samples: dict[str, dict[str, list[Any]]] = {
        name: {skew: [] for skew in ("none", *args.skews)} for name in methods
    }
    for number in range(-1, args.rounds):
        for name, method in methods.items():
            for skew, rounds in samples[name].items():
                method.skew = added[skew]
                ranks = time_round(world, method, args.steps if number >= 0 else 2)
                if number >= 0:
                    rounds.append(ranks)
    sent = {name: method.sent_bytes / method.steps_done for name, method in methods.items()}
    total = [json.loads(t) for t in world.gather_text(json.dumps(sent), "bytes sent")]
    if world.rank == 0:
        sums = {name: sum(part[name] for part in total) for name in methods}
        slow_network.report({"samples": samples, "bytes": sums})


def summarize(measured: dict[str, Any], args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Return medians for every method, and what each skew costs."""
    result = {}
    for name, by_skew in measured["samples"].items():
        elapsed = {
            skew: [max(rank["elapsed_s"] for rank in ranks) for ranks in rounds]
            for skew, rounds in by_skew.items()
        }
        images = args.batch_size * args.steps
        plain = elapsed["none"]
        entry: dict[str, Any] = {
            "samples_per_s": round(images / median(plain), 1),
            "best_samples_per_s": round(images / min(plain), 1),
            "bytes_per_step": round(measured["bytes"][name]),
        }
        for skew in args.skews:
            entry[f"lost_{skew}"] = lost(plain, elapsed[skew])
        result[name] = entry
    return result


def lost(plain: Sequence[float], skewed: Sequence[float]) -> dict[str, float]:
    """Return the share of the throughput that is lost, from seconds by round."""
    shares = [1 - a / b for a, b in zip(plain, skewed, strict=True)]
    return {
        "median": round(median(shares), 3),
        "best_rounds": round(1 - min(plain) / min(skewed), 3),
    }


def main() -> None:
    """Parse the command line, measure every rate, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_problem_flags(parser)
    parser.add_argument("--methods", nargs="+", choices=OURS, default=OURS)
    parser.add_argument("--skews", nargs="+", choices=SKEWS, default=["random"])
    parser.add_argument("--skew-ms", type=float, default=20.0)
    parser.add_argument("--rates", nargs="+", default=["100mbit"])
    args = parse_problem(parser)
    if args.worker:
        measure_ranks(args)
        return
    results = {}
    for rate in args.rates:
        print(rate, file=sys.stderr, flush=True)
        with slow_network.hosts(2, rate):
            arguments = worker_arguments(args, Path("unused"))
            measured: Any = slow_network.run_worker(__file__, arguments)
        results[rate] = summarize(measured, args)
    facts = {k: v for k, v in vars(args).items() if k not in ("worker", "store")}
    print(json.dumps({**facts, "skew": results}, indent=2))


if __name__ == "__main__":
    main()

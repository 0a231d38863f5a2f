"""Time the exchange of a network's gradients, by every method side by side.

    sudo python benchmarks/exchange/exchange.py --hosts 2 --rate 1gbit --network alexnet
    sudo python benchmarks/exchange/exchange.py --rate unlimited --methods fp32 auto

Starts hosts with slow_hosts.sh, one rank with one thread on each. Rounds go through all
methods in turn, so that noise hits all alike. Gradients are complete when the clock
starts, so no backward pass hides anything. Prints JSON, for each method: median
milliseconds of the slowest rank, how many times faster than Horovod fp32 (median of the
rounds' ratios), bytes sent by the busiest host as its network interface counts them,
and CPU seconds of all ranks (ranks that wait inside MPI spin, so they count as well).
DDP's hooks run inside a backward pass: what that takes without a hook is taken off.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network
from benchmarks.codec.gradient_sets import GRADIENT_SETS, num_values

WARMUP_ROUNDS = 1


def measure_ranks(args: argparse.Namespace) -> None:
    """Run on every host: exchange, and have rank 0 report what all ranks measured."""
    import horovod.torch as hvd
    import torch

    from benchmarks.exchange.methods import GradientSet, make_method

    slow_network.meet_on_hosts()
    hvd.init()
    gradients = GradientSet(GRADIENT_SETS[args.network]())
    methods = {name: make_method(name, gradients) for name in args.methods}
    samples: dict[str, list[list[float]]] = {name: [] for name in methods}
    for number in range(-WARMUP_ROUNDS, args.rounds):
        for name, method in methods.items():
            repeats = args.repeats if number >= 0 else 3 if name[:4] == "ddp-" else 1
            elapsed_s = cpu_s = sent = 0.0
            for _ in range(repeats):
                method.prepare()
                hvd.allreduce(torch.zeros(1), name="start")
                sent -= slow_network.sent_bytes()
                cpu_s -= time.process_time()
                elapsed_s -= time.perf_counter()
                method.exchange()
                elapsed_s += time.perf_counter()
                hvd.allreduce(torch.zeros(1), name="end")
                cpu_s += time.process_time()
                sent += slow_network.sent_bytes()
            own = torch.tensor([elapsed_s, sent, cpu_s], dtype=torch.float64) / repeats
            ranks = hvd.allgather(own.unsqueeze(0), name="samples")
            if number >= 0:
                slowest, busiest = ranks[:, 0].max(), ranks[:, 1].max()
                sample = [slowest, busiest, ranks[:, 2].sum()]
                samples[name].append([float(value) for value in sample])
    if hvd.rank() == 0:
        formulas = {name: method.wire_bytes for name, method in methods.items()}
        advice = {name: method.advice for name, method in methods.items()}
        slow_network.report({"samples": samples, "formulas": formulas, "advice": advice})


def summarize(
    samples: dict[str, list[list[float]]], formulas: dict[str, float], advice: dict[str, str]
) -> dict[str, dict[str, float | str]]:
    """Return medians of every method, and ratios to Horovod fp32 by rounds."""
    idle = [row[0] for row in samples.get("ddp-nothing", [])]
    times = {
        name: [
            row[0] - (idle[number] if name[:4] == "ddp-" else 0.0)
            for number, row in enumerate(rows)
        ]
        for name, rows in samples.items()
        if name != "ddp-nothing"
    }
    result = {}
    for name, own in times.items():
        rows = samples[name]
        sent = statistics.median(row[1] for row in rows)
        entry: dict[str, float | str] = {
            "milliseconds": round(1e3 * statistics.median(own), 3),
            "fastest_milliseconds": round(1e3 * min(own), 3),
            "wire_bytes": round(sent),
            "cpu_seconds": round(statistics.median(row[2] for row in rows), 4),
        }
        if formulas[name] == formulas[name]:  # not NaN
            entry["wire_bytes_over_formula"] = round(sent / formulas[name], 3)
        if "fp32" in times:
            ratios = [a / b for a, b in zip(times["fp32"], own, strict=True)]
            entry["times_faster_than_fp32"] = round(statistics.median(ratios), 2)
        if advice[name]:
            entry["advice"] = advice[name]
        result[name] = entry
    return result


def parse() -> argparse.Namespace:
    """Return the command line's arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rate", default="1gbit", help="of tc, or unlimited")
    parser.add_argument("--network", choices=list(GRADIENT_SETS), default="alexnet")
    parser.add_argument("--methods", nargs="+", help="default: all", default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="exchanges a round")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Parse the command line, measure every method, print JSON."""
    args = parse()
    if args.methods is None:
        args.methods = ["fp32", "fp16", "allgather", "alltoall", "allreduce"]
        args.methods += ["ddp-fp16", "ddp-powersgd"]
    if any(name[:4] == "ddp-" for name in args.methods):
        args.methods = list(dict.fromkeys([*args.methods, "ddp-nothing"]))
    if args.worker:
        measure_ranks(args)
        return
    arguments = ["--worker", "--network", args.network, "--methods", *args.methods]
    arguments += ["--rounds", str(args.rounds), "--repeats", str(args.repeats)]
    with slow_network.hosts(args.hosts, args.rate):
        measured = slow_network.run_worker(__file__, arguments)
    assert isinstance(measured, dict)
    facts = {"hosts": args.hosts, "rate": args.rate, "network": args.network}
    facts["values"] = num_values(GRADIENT_SETS[args.network]())
    print(json.dumps({**facts, "exchange": summarize(**measured)}, indent=2))


if __name__ == "__main__":
    main()

"""Time whole training steps, by every method of averaging gradients side by side.

    sudo python benchmarks/exchange/step.py --model alexnet --rates 1gbit
    sudo python benchmarks/exchange/step.py --model vgg16 --width 0.5 --hosts 2

A step is forward, backward, exchange and optimizer (SGD with momentum) on random 32x32
images; "alone" is the same step without any exchange, on all hosts at once. Starts
hosts with slow_hosts.sh, one rank with one thread on each; rounds go through all
methods in turn. Prints JSON for each rate: median milliseconds of the slowest rank, and
the median of the rounds' ratios to "alone" and to Horovod fp32.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network

METHODS = ("alone", "fp32", "fp16", "allgather", "alltoall", "allreduce")
PEERS = ("ddp-fp16", "ddp-powersgd")


class Trainer:
    """A model of its own for one method: each puts its hooks on the parameters."""

    def __init__(self, method: str, args: argparse.Namespace) -> None:
        """Make model and optimizer."""
        import horovod.torch as hvd
        import torch

        import knet_hvd
        from knet_hvd.models import build_model

        torch.manual_seed(0)
        shape, classes = (3, 32, 32), 10
        self.model: Any = build_model(
            args.model, in_shape=shape, num_classes=classes, width=args.width
        )
        self.images = torch.randn(args.batch_size, *shape)
        self.labels = torch.randint(classes, (args.batch_size,))
        named = list(self.model.named_parameters())
        base = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.optimizer: Any = base
        if method in ("fp32", "fp16"):
            compressor = getattr(hvd.Compression, {"fp32": "none"}.get(method, method))
            self.optimizer = hvd.DistributedOptimizer(base, named, compressor)
        elif method == "allreduce":
            compressor = knet_hvd.Compression.ternary(named)
            self.optimizer = hvd.DistributedOptimizer(base, named, compressor)
        elif method in ("allgather", "alltoall"):
            self.optimizer = knet_hvd.DistributedOptimizer(base, named, exchange=method)
        elif method != "alone":
            from benchmarks.exchange.methods import wrap_in_ddp

            self.model = wrap_in_ddp(self.model, method)

    def step(self) -> None:
        """Make one training step."""
        import torch

        self.optimizer.zero_grad()
        output = self.model(self.images)
        torch.nn.functional.cross_entropy(output, self.labels).backward()
        self.optimizer.step()


def measure_ranks(args: argparse.Namespace) -> None:
    """Run on every host: train by each method in turn; rank 0 reports seconds."""
    import horovod.torch as hvd
    import torch

    slow_network.meet_on_hosts()
    hvd.init()
    trainers = {name: Trainer(name, args) for name in args.methods}
    samples: dict[str, list[float]] = {name: [] for name in trainers}
    for number in range(-1, args.rounds):
        for name, trainer in trainers.items():
            for _ in range(3 if number < 0 and name in PEERS else 0):
                trainer.step()
            hvd.allreduce(torch.zeros(1), name="start")
            start = time.perf_counter()
            for _ in range(args.repeats):
                trainer.step()
            own = (time.perf_counter() - start) / args.repeats
            elapsed_s = hvd.allreduce(
                torch.tensor([own], dtype=torch.float64), op=hvd.Max, name="slowest"
            )
            if number >= 0:
                samples[name].append(float(elapsed_s))
    if hvd.rank() == 0:
        slow_network.report(samples)


def summarize(samples: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Return every method's median, and its ratios to two others by rounds."""
    result = {}
    for name, own in samples.items():
        entry = {"milliseconds": round(1e3 * statistics.median(own), 1)}
        for other, key in (("alone", "times_alone"), ("fp32", "times_fp32")):
            if other in samples:
                ratios = [a / b for a, b in zip(own, samples[other], strict=True)]
                entry[key] = round(statistics.median(ratios), 3)
        result[name] = entry
    return result


def main() -> None:
    """Parse the command line, measure every rate, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [*METHODS, *PEERS]
    rates = ["100mbit", "1gbit", "10gbit", "unlimited"]
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rates", nargs="+", default=rates)
    parser.add_argument("--model", default="alexnet")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1, help="steps a round")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        measure_ranks(args)
        return
    arguments = ["--worker", "--methods", *args.methods]
    for name in ("model", "width", "batch_size", "rounds", "repeats"):
        arguments += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    results = {}
    for rate in args.rates:
        print(rate, file=sys.stderr, flush=True)
        with slow_network.hosts(args.hosts, rate):
            samples: Any = slow_network.run_worker(__file__, arguments)
        results[rate] = summarize(samples)
    facts = {"hosts": args.hosts, "model": args.model, "width": args.width}
    facts["batch_size"] = args.batch_size
    print(json.dumps({**facts, "step": results}, indent=2))


if __name__ == "__main__":
    main()

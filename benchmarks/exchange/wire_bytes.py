"""Count what really crosses the network in a training step, beside the formulas.

    sudo python benchmarks/exchange/wire_bytes.py --hosts 2 --model lenet

Starts hosts with slow_hosts.sh, trains on random images over each exchange, and reads
the bytes that the network interface of host 1 has sent: headers, acknowledgements,
scales, float tensors and Horovod's own coordination, all counted. Prints JSON; "ratio"
is Horovod fp32's bytes over the method's.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network

METHODS = ("fp32", "fp16", "allgather", "alltoall", "allreduce")
IN_SHAPES = {"lenet": (1, 28, 28)}
WARMUP_STEPS = 5


def train(args: argparse.Namespace) -> None:
    """Run on every host: train, and have rank 0 print the bytes a step."""
    import horovod.torch as hvd
    import torch

    import knet_hvd
    from knet_hvd.data_parallel.optimizer.horovod import wrap_horovod
    from knet_hvd.models import build_model

    hvd.init()
    torch.manual_seed(0)
    shape = IN_SHAPES.get(args.model, (3, 32, 32))
    model = build_model(args.model, in_shape=shape, num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    names = list(model.named_parameters())
    if args.worker in ("fp32", "fp16"):
        name = {"fp32": "none", "fp16": "fp16"}[args.worker]
        optimizer = wrap_horovod(optimizer, names, getattr(hvd.Compression, name))
    elif args.worker == "allreduce":
        optimizer = wrap_horovod(optimizer, names, knet_hvd.Compression.ternary(names))
    else:
        optimizer = knet_hvd.DistributedOptimizer(optimizer, names, exchange=args.worker)
    for step in range(WARMUP_STEPS + args.steps):
        if step == WARMUP_STEPS:
            hvd.allreduce(torch.zeros(1), name="start")
            sent = slow_network.sent_bytes()
        images = torch.randn(args.batch_size, *shape)
        labels = torch.randint(10, (args.batch_size,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    hvd.allreduce(torch.zeros(1), name="end")
    if hvd.rank() == 0:
        measured = (slow_network.sent_bytes() - sent) / args.steps
        formula = optimizer.wire_bytes.compressed
        slow_network.report({"measured": measured, "formula": formula})


def measure(args: argparse.Namespace, method: str) -> dict[str, float]:
    """Run one method on the hosts and return its bytes a step."""
    arguments = ["--worker", method, "--model", args.model]
    arguments += ["--steps", str(args.steps), "--batch-size", str(args.batch_size)]
    result: Any = slow_network.run_worker(__file__, arguments)
    return dict(result)


def main() -> None:
    """Parse the command line, measure every method, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        train(args)
        return
    with slow_network.hosts(args.hosts, args.rate):
        results = {method: measure(args, method) for method in args.methods}
    base = results.get("fp32", {}).get("measured")
    for result in results.values():
        result["over_formula"] = round(result["measured"] / result["formula"], 3)
        if base:
            result["ratio"] = round(base / result["measured"], 2)
    facts = {"hosts": args.hosts, "rate": args.rate, "model": args.model}
    print(json.dumps({**facts, "bytes_per_step": results}, indent=2))


if __name__ == "__main__":
    main()

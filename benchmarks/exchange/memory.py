"""Measure the memory that averaging gradients adds, in bytes a parameter.

    mpirun -np 2 python benchmarks/exchange/memory.py --network alexnet
    mpirun -np 4 --oversubscribe python benchmarks/exchange/memory.py --method alltoall

Parameters, gradients and a plain torch optimizer exist before the first reading of the
resident size; the second is its peak while the optimizer is wrapped and exchanges three
times, Horovod's own buffers counted. One method a run. Prints JSON: the largest of all
ranks. Needs Linux, whose kernel keeps the peak and can be told to forget it.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import horovod.torch as hvd
import torch

from benchmarks.codec.gradient_sets import GRADIENT_SETS, num_values
from benchmarks.exchange.methods import GradientSet, make_method

_STATUS = Path("/proc/self/status")
_FORGET_PEAK = "5"


def resident_bytes(key: str) -> int:
    """Return the resident size ("VmRSS") or its peak ("VmHWM")."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return 1024 * int(lines[key].split()[0])


def added_bytes(method: str, network: str) -> int:
    """Return what a method adds at its peak on this rank."""
    gradients = GradientSet(GRADIENT_SETS[network]())
    gradients.refill()
    hvd.allreduce(torch.zeros(1), name="warm")
    # The first optimizer of a process imports torch's compiler, 75 MiB: any training
    # script has it, whatever it does with its gradients.
    torch.optim.SGD(gradients.parameters.values(), lr=0.1)
    Path("/proc/self/clear_refs").write_text(_FORGET_PEAK)
    before = resident_bytes("VmRSS")
    exchanger = make_method(method, gradients)
    for _ in range(3):
        exchanger.prepare()
        exchanger.exchange()
    return resident_bytes("VmHWM") - before


def main() -> None:
    """Parse the command line, measure one method, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["fp32", "fp16", "allgather", "alltoall", "allreduce"]
    parser.add_argument("--network", choices=list(GRADIENT_SETS), default="alexnet")
    parser.add_argument("--method", choices=names, default="allgather")
    args = parser.parse_args()
    hvd.init()
    own = torch.tensor([added_bytes(args.method, args.network)])
    added = int(hvd.allreduce(own, op=hvd.Max, name="largest"))
    values = num_values(GRADIENT_SETS[args.network]())
    if hvd.rank() == 0:
        result = {
            "network": args.network,
            "method": args.method,
            "num_ranks": hvd.size(),
            "added_bytes": added,
            "added_bytes_per_parameter": round(added / values, 3),
        }
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

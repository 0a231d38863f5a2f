"""Time training on two ranks of one thread: PyTorch's pipeline, one process, and ours.

    python benchmarks/pipeline/speed.py --network mlp
    python benchmarks/pipeline/speed.py --network vgg16 --rounds 9
    python benchmarks/pipeline/speed.py --network transformer --batch-size 32 --width 1

`single` is one process with one thread; `torch-1f1b` is Schedule1F1B of
torch.distributed.pipelining over gloo, with the same stages, batch and microbatches as
`backprop-1f1b`. `delayed-stashed-predicted-microbatches` has as many; the other methods
overlap without microbatches. Rounds go through all methods in turn, so that noise hits
all alike. A round has --steps steps, filling and draining the pipeline included.

Ours keep freed memory for the next step, as jobs/train_pipeline.py has them do. The
other two run as they come, and as `single-kept` and `torch-1f1b-kept` with that as
well; methods with and without it are in processes of their own.

Prints JSON for each method: samples a second (median and best of the rounds); how many
times faster than each of the others' it is (median, lowest and highest of the
rounds' ratios, and the ratio of the best rounds); and for each rank CPU milliseconds a
step (all threads), the share of the time in which other programs had its core, and for
ours the share in which it waited for the other rank. Ratios mean little where other
programs had the cores.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import slow_network

NETWORKS = {"mlp": 7, "vgg16": 6, "transformer": 3}
"""The networks, and the cut at which the most accurate decoupler is fastest here."""
OURS = ["backprop-sequential", "backprop-1f1b"]
OURS += ["local", "synthetic", "conditioned", "delayed", "delayed-stashed"]
OURS += ["delayed-stashed-predicted", "delayed-stashed-predicted-microbatches"]
BASELINES = ["single", "torch-1f1b", "single-kept", "torch-1f1b-kept"]
AS_THEY_COME = BASELINES[:2]
METHODS = [*BASELINES, *OURS]
_WARM_UP_STEPS = 2
_SCHEDULER = Path("/proc/self/schedstat")
"""Nanoseconds on a core, and nanoseconds of waiting for one, of the main thread."""


def measure_ranks(args: argparse.Namespace) -> None:
    """Run on both ranks: train by each method in turn; rank 0 reports a round."""
    from benchmarks.pipeline.methods import make_method
    from benchmarks.pipeline.problem import Problem
    from knet_hvd.comm import World
    from knet_hvd.metrics.process_memory import keep_freed_blocks

    if args.methods[0] not in AS_THEY_COME:
        keep_freed_blocks()
    world = World(timeout_s=120)
    problem = Problem.of(args)
    methods = {n: make_method(n, problem, world.rank, "lo") for n in args.methods}
    samples = {}
    for steps in (_WARM_UP_STEPS, args.steps):
        for name, method in methods.items():
            samples[name] = time_round(world, method, steps)
    if world.rank == 0:
        slow_network.report(samples)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return every method's rounds, each with what its ranks measured."""
    samples: dict[str, list[Any]] = {name: [] for name in args.methods}
    as_they_come = [name for name in args.methods if name in AS_THEY_COME]
    kept = [name for name in args.methods if name not in AS_THEY_COME]
    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
        for methods in filter(None, (as_they_come, kept)):
            own = argparse.Namespace(**{**vars(args), "methods": methods})
            with tempfile.TemporaryDirectory() as folder:
                arguments = worker_arguments(own, Path(folder) / "store")
                result: Any = slow_network.run_here(__file__, arguments, ranks=2)
            for name, ranks in result.items():
                samples[name].append(ranks)
    return samples


def time_round(world: Any, method: Any, steps: int) -> list[dict[str, float]]:
    """Train some steps on all ranks at once; return what each rank measured."""

    def reading() -> tuple[float, ...]:
        waited_s = 1e-9 * float(_SCHEDULER.read_text().split()[1])
        return time.process_time(), method.idle_s, waited_s

    world.gather_text("", "the start of a round")
    start_s, start = time.perf_counter(), reading()
    method.run(steps)
    cpu_s, idle_s, waited_s = (b - a for a, b in zip(start, reading(), strict=True))
    world.gather_text("", "the end of a round")
    own = {
        "elapsed_s": time.perf_counter() - start_s,
        "cpu_ms_per_step": 1e3 * cpu_s / steps,
        "idle_s": idle_s,
        "core_wait_s": waited_s,
    }
    texts = world.gather_text(json.dumps(own), "what a round took")
    return [json.loads(text) for text in texts]


def summarize(samples: dict[str, Any], batch_size: int, steps: int) -> dict[str, Any]:
    """Return medians for every method."""
    elapsed = {
        name: [max(rank["elapsed_s"] for rank in ranks) for ranks in rounds]
        for name, rounds in samples.items()
    }
    result: dict[str, Any] = {}
    for name, rounds in samples.items():
        own = elapsed[name]
        entry: dict[str, Any] = {
            "samples_per_s": round(batch_size * steps / median(own), 1),
            "best_samples_per_s": round(batch_size * steps / min(own), 1),
        }
        for other in BASELINES:
            if other in elapsed and other != name:
                entry[f"times_{other}"] = compare(elapsed[other], own)
        by_rank = list(zip(*rounds, strict=True))
        entry["cpu_ms_per_step"] = [
            round(median([part["cpu_ms_per_step"] for part in rank]), 1) for rank in by_rank
        ]
        entry["core_wait_share"] = [_share(rank, "core_wait_s") for rank in by_rank]
        if name in OURS:
            entry["idle_share"] = [_share(rank, "idle_s") for rank in by_rank]
        result[name] = entry
    return result


def compare(reference: Sequence[float], own: Sequence[float]) -> dict[str, float]:
    """Return how many times faster a method is, from seconds by round."""
    ratios = [a / b for a, b in zip(reference, own, strict=True)]
    values = {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    values["best_rounds"] = min(reference) / min(own)
    return {key: round(value, 3) for key, value in values.items()}


def _share(rounds: Sequence[dict[str, float]], key: str) -> float:
    return round(median([part[key] / part["elapsed_s"] for part in rounds]), 3)


def add_problem_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is trained."""
    parser.add_argument("--network", choices=list(NETWORKS), default="mlp")
    parser.add_argument("--width", type=float, default=0.5, help="of vgg16 and transformer")
    parser.add_argument("--depth", type=int, default=16, help="1024-wide layers of mlp")
    parser.add_argument("--cut", type=int, help="blocks of the first stage")
    parser.add_argument(
        "--cut-between",
        choices=["blocks", "layers"],
        default="blocks",
        help="of vgg16; layers: every layer counts as a block",
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--microbatches", type=int, default=4, help="of both 1F1Bs")
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--encoding", default="fp32", help="of activations, ours")
    parser.add_argument("--gradient-encoding", default="fp32", help="ours")
    parser.add_argument("--mpi-progress", default="auto", help="ours: on or off")
    parser.add_argument("--synthesizer-layers", type=int, help="default: as published")
    parser.add_argument("--synthesizer-units", type=int, default=None)
    parser.add_argument("--synthesizer-kernel", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="a round")
    parser.add_argument("--store", help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)


def worker_arguments(args: argparse.Namespace, store: Path) -> list[str]:
    """Return the command line of a worker."""
    arguments = ["--worker", "--store", str(store)]
    for name, value in vars(args).items():
        if name in ("worker", "store") or value is None:
            continue
        values = value if isinstance(value, list) else [value]
        arguments += [f"--{name.replace('_', '-')}", *map(str, values)]
    return arguments


def parse_problem(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line; each network has a cut of its own."""
    args = parser.parse_args()
    if args.cut is None:
        args.cut = NETWORKS[args.network]
    return args


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_problem_flags(parser)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    args = parse_problem(parser)
    if args.worker:
        measure_ranks(args)
        return
    samples = measure(args)
    facts = {k: v for k, v in vars(args).items() if k not in ("worker", "store")}
    results = summarize(samples, args.batch_size, args.steps)
    print(json.dumps({**facts, "throughput": results}, indent=2))


if __name__ == "__main__":
    main()

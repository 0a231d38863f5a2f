"""Measure what losing a worker costs: test accuracy beside an undisturbed run's.

    python benchmarks/faults/elastic.py --out runs/elastic --data-dir DIR
    python benchmarks/faults/elastic.py --out runs/elastic --seeds 0

Runs the elastic job on 4 workers, on MNIST with --data-dir, else on the digits: once
undisturbed, and once with a worker killed (SIGKILL) at about a third of the run and
another one added at about two thirds. A run whose summary is already in --out is not
repeated. Prints JSON: accuracies in percent, their difference in points, and how often
and when the workers formed the group again.
"""

import argparse
import json
import signal
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.faults.elastic_job import ElasticJob

NUM_WORKERS = 4
LIMIT_S = 3600.0


def settings(args: argparse.Namespace, seed: int) -> list[str]:
    """Return the flags of the job."""
    flags = ["--batch-size", "16", "--ternary.error-feedback", "--seed", str(seed)]
    flags += ["--epochs", str(args.epochs), "--model", args.model]
    # With a rate that falls to 0, less of the difference is chance.
    flags += ["--learning-rate", "0.01", "--learning-rate-schedule", args.schedule]
    if args.data_dir is not None:
        flags += ["--data", "mnist", "--data-dir", str(args.data_dir)]
    return flags


def run(args: argparse.Namespace, seed: int, disturbed: bool) -> dict[str, Any]:
    """Run the job unless its summary exists; return the summary."""
    kind = "disturbed" if disturbed else "undisturbed"
    name = f"{args.model}-{args.schedule}-seed{seed}-{kind}"
    summary = args.out / f"{name}.json"
    if not summary.exists():
        print(f"running {name}", file=sys.stderr, flush=True)
        flags = [*settings(args, seed), "--summary", str(summary)]
        with (
            tempfile.TemporaryDirectory() as folder,
            ElasticJob(Path(folder), NUM_WORKERS, flags, min_workers=2) as job,
        ):
            if disturbed:
                disturb(job)
            if job.wait(LIMIT_S) != 0:
                raise RuntimeError(f"{name} failed:\n{job.text}")
    result: dict[str, Any] = json.loads(summary.read_text())
    return result


def disturb(job: ElasticJob) -> None:
    """Kill one worker, and add another one later."""
    job.wait_until(lambda: job.percent >= 30, LIMIT_S)
    job.workers()[1].kill()
    job.wait_until(lambda: job.workers_left, LIMIT_S)
    job.wait_until(lambda: job.percent >= 60, LIMIT_S)
    job.add_hosts(NUM_WORKERS - job.workers_left)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run both on all seeds."""
    rows = []
    for seed in args.seeds:
        calm, hit = (run(args, seed, disturbed) for disturbed in (False, True))
        if calm["resets"] != 0 or hit["resets"] < 2:
            raise RuntimeError(f"workers: {calm['sizes']} and {hit['sizes']}")
        row = {
            "seed": seed,
            "undisturbed": round(100 * calm["test_accuracy"], 2),
            "disturbed": round(100 * hit["test_accuracy"], 2),
            "undisturbed_steps": calm["steps"],
            "disturbed_steps": hit["steps"],
        }
        rows.append(row | {key: hit[key] for key in ("sizes", "reset_steps", "steps_lost")})
    gaps = [row["disturbed"] - row["undisturbed"] for row in rows]
    mean = statistics.mean(gaps)
    return {"settings": " ".join(settings(args, 0)), "runs": rows} | {
        "gap_points": round(mean, 3),
        "largest_gap_points": round(max(map(abs, gaps)), 3),
    }


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--model", default="lenet")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--schedule", default="polynomial")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and end the job as well
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(measure(args), indent=2))


if __name__ == "__main__":
    main()

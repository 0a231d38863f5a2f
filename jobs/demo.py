"""Compare fp32 with ternary gradients, and a locked pipeline with a decoupled one.

    python jobs/demo.py

Two ranks on this machine, scikit-learn's handwritten digits, about a minute.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from knet_hvd.launcher import ALLOW_ROOT, root_is_refused

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "demo"
NUM_RANKS = 2
GRADIENTS = {"fp32": "none", "ternary": "ternary"}
DECOUPLERS = {"backprop": "locked", "local": "decoupled"}


def mpirun(num_ranks: int) -> list[str]:
    """Return the mpirun command line for ranks on this machine.

    Ranks that wait yield their core, since there may be more ranks than cores.
    """
    launcher = Path(sys.executable).with_name("mpirun")
    command = [str(launcher) if launcher.exists() else "mpirun", "--oversubscribe"]
    if root_is_refused():
        command.append("--allow-run-as-root")
    return [*command, "--mca", "mpi_yield_when_idle", "1", "-np", str(num_ranks)]


def train(job: str, name: str, *flags: str) -> dict[str, Any]:
    """Run a training job and return its summary."""
    summary = RUNS / f"{name}.json"
    command = [sys.executable, str(ROOT / "jobs" / job), *flags]
    command += ["--summary", str(summary), "--logdir", str(RUNS / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*mpirun(NUM_RANKS), *command], check=True, env=environment)
    return dict(json.loads(summary.read_text()))


def train_data_parallel() -> str:
    """Train with each kind of gradients; return the table that compares them."""
    lines = ["gradients   test accuracy   kB a step and rank   times fewer   samples/s"]
    for name, compression in GRADIENTS.items():
        print(f"\nTraining LeNet on digits, {NUM_RANKS} ranks, {name} gradients")
        flags = ["--epochs", "20", "--histogram-every", "50"]
        flags += ["--compression", compression]
        result = train("train_data_parallel.py", name, *flags)
        lines.append(
            f"{name:<11} {100 * result['test_accuracy']:>11.2f} % "
            f"{result['wire_bytes_per_step'] / 1e3:>20.1f} "
            f"{result['compression_ratio']:>13.1f} "
            f"{result['samples_per_second']:>11.0f}"
        )
    return "\n".join(lines)


def train_pipelines() -> str:
    """Train the pipeline with each decoupler; return the table that compares them."""
    lines = ["pipeline    test accuracy   kB a step            idle stages   samples/s"]
    for name, kind in DECOUPLERS.items():
        print(f"\nTraining mnist4 on digits in {NUM_RANKS} stages, {name} ({kind})")
        flags = ["--decoupler", name, "--cuts", "1", "--epochs", "20"]
        result = train("train_pipeline.py", name, *flags)
        idle = [stage["idle_fraction"] for stage in result["stages"]]
        lines.append(
            f"{name:<11} {100 * result['test_accuracy']:>11.2f} % "
            f"{result['bytes_per_step'] / 1e3:>11.1f} "
            f"{100 * sum(idle) / len(idle):>20.0f} % "
            f"{result['samples_per_second']:>11.0f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the demo; return the exit code."""
    try:
        tables = [train_data_parallel(), train_pipelines()]
    except subprocess.CalledProcessError as error:
        print(
            f"demo: training failed with exit code {error.returncode}; its own "
            "message is above. `python -m knet_hvd` tells what is installed.",
            file=sys.stderr,
        )
        return 1
    print("", *tables, sep="\n\n")
    print("\nOn one machine nothing is slow about the network, so ternary gradients")
    print("only cost time here; over 1 Gbit/s and less they save it. Stages of a locked")
    print("pipeline wait for each other and decoupled ones do not, which pays where a")
    print("step is longer than the few milliseconds of this one.")
    tensorboard = Path(sys.executable).with_name("tensorboard")
    print(
        f"\nThe curves and gradient histograms of all runs:\n"
        f"  {tensorboard} --logdir {RUNS.relative_to(ROOT)}"
    )
    if root_is_refused():
        print(
            "\nThis is root, for whom mpirun needs a flag. For commands of your own, write once:\n"
            f"  {ALLOW_ROOT}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train the same small network with fp32 and with ternary gradients, and compare.

    python jobs/demo.py

Two ranks on this machine, scikit-learn's handwritten digits, about a minute.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "demo"
NUM_RANKS = 2
METHODS = {"fp32": "none", "ternary": "ternary"}


def mpirun(num_ranks: int) -> list[str]:
    """Return the mpirun command line for ranks on this machine.

    Ranks that wait yield their core, since there may be more ranks than cores.
    """
    launcher = Path(sys.executable).with_name("mpirun")
    command = [str(launcher) if launcher.exists() else "mpirun", "--oversubscribe"]
    if os.getuid() == 0:
        command.append("--allow-run-as-root")
    return [*command, "--mca", "mpi_yield_when_idle", "1", "-np", str(num_ranks)]


def train(name: str, compression: str) -> dict[str, float]:
    """Run the training job with one compression and return its summary."""
    summary = RUNS / f"{name}.json"
    job = [sys.executable, str(ROOT / "jobs" / "train_data_parallel.py")]
    job += ["--compression", compression, "--epochs", "20", "--histogram-every", "50"]
    job += ["--summary", str(summary), "--logdir", str(RUNS / name)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*mpirun(NUM_RANKS), *job], check=True, env=environment)
    return dict(json.loads(summary.read_text()))


def table(results: dict[str, dict[str, float]]) -> str:
    """Return the closing table."""
    lines = ["gradients   test accuracy   kB a step and rank   times fewer   samples/s"]
    for name, result in results.items():
        lines.append(
            f"{name:<11} {100 * result['test_accuracy']:>11.2f} % "
            f"{result['wire_bytes_per_step'] / 1e3:>20.1f} "
            f"{result['compression_ratio']:>13.1f} "
            f"{result['samples_per_second']:>11.0f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Run the demo; return the exit code."""
    results = {}
    for name, compression in METHODS.items():
        print(f"\nTraining LeNet on digits, {NUM_RANKS} ranks, {name} gradients")
        try:
            results[name] = train(name, compression)
        except subprocess.CalledProcessError as error:
            print(f"demo: training failed with exit code {error.returncode}; its own "
                  "message is above. `python -m knet_hvd` tells what is installed.",
                  file=sys.stderr)  # fmt: skip
            return 1
    print(f"\n{table(results)}\n")
    print("On one machine nothing is slow about the network, so ternary gradients only")
    print("cost time here; over 1 Gbit/s and less they save it.")
    tensorboard = Path(sys.executable).with_name("tensorboard")
    print(f"\nThe curves and gradient histograms of both runs:\n"
          f"  {tensorboard} --logdir {RUNS.relative_to(ROOT)}")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())

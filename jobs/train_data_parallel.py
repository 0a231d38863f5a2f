"""Train an image classifier on all ranks with float or ternary gradients.

    mpirun -np 2 python jobs/train_data_parallel.py --compression ternary --epochs 10
    horovodrun --gloo -np 2 python jobs/train_data_parallel.py --data mnist --data-dir
    DIR

Prints a line for each run; --summary writes the results as JSON, --logdir the curves
and gradient histograms for TensorBoard.
"""

import os
import sys
from pathlib import Path

import horovod.torch as hvd
import tyro
from horovod.common.exceptions import HorovodInternalError

from knet_hvd.config import KnetError, write_json_atomic
from knet_hvd.data_parallel.trainer import DataParallelTrainer
from knet_hvd.data_parallel.training_config import TrainingConfig


def check_writable(summary: Path) -> None:
    """Make the folder of the results, before hours are spent on them.

    Raises:
        ValueError: If they could not be written.
    """
    try:
        summary.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"summary {summary} cannot be written ({error.strerror}): choose another"
        ) from error
    if not os.access(summary.parent, os.W_OK):
        raise ValueError(f"summary {summary} cannot be written: choose another")


def main() -> int:
    """Run the job; return the exit code."""
    config = tyro.cli(TrainingConfig, description=__doc__)
    hvd.init()
    try:
        if config.summary is not None and hvd.rank() == 0:
            check_writable(config.summary)
        summary = DataParallelTrainer(config).train()
        if hvd.rank() == 0:
            if config.summary is not None:
                write_json_atomic(config.summary, summary)
            print(
                f"{config.model} on {config.data}, {summary['num_ranks']} ranks, "
                f"{config.compression}: test accuracy {summary['test_accuracy']:.4f}, "
                f"{summary['samples_per_second']:.0f} samples/s, "
                f"{summary['wire_bytes_per_step'] / 1e3:.1f} kB a step and rank "
                f"({summary['compression_ratio']:.1f} times fewer than fp32)"
            )
    except (KnetError, ValueError) as error:
        print(f"train_data_parallel: rank {hvd.rank()}: {error}", file=sys.stderr)
        return 1
    except HorovodInternalError:
        print(
            f"train_data_parallel: rank {hvd.rank()}: stopped, since another rank has "
            "ended; what that one printed tells why",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train an image classifier on all ranks with float or ternary gradients.

    mpirun -np 2 python jobs/train_data_parallel.py --compression ternary
    mpirun -np 2 python jobs/train_data_parallel.py --data mnist --data-dir DIR
    horovodrun --gloo -np 2 python jobs/train_data_parallel.py --logdir runs/ternary

Prints a line for each run; --summary writes the results as JSON, --logdir the curves
and gradient histograms for TensorBoard.
"""

import sys
import time

import horovod.torch as hvd
import tyro
from horovod.common.exceptions import HorovodInternalError

from knet_hvd.config import KnetError, check_writable, write_json_atomic
from knet_hvd.data_parallel.trainer import DataParallelTrainer
from knet_hvd.data_parallel.training_config import TrainingConfig

GRACE_S = 2.0


def parse_flags() -> TrainingConfig:
    """Return the configuration; on a wrong flag, exit once all ranks could say so."""
    try:
        return tyro.cli(TrainingConfig, description=__doc__)
    except SystemExit as stop:
        if stop.code:
            time.sleep(GRACE_S)
        raise


def fail(message: str) -> int:
    """Print why this rank stops; return the exit code.

    The launcher ends all ranks as soon as one has failed, so each waits for the others
    to have printed theirs.
    """
    text = f"train_data_parallel: rank {hvd.rank()}: {message}"
    print(text, file=sys.stderr, flush=True)
    time.sleep(GRACE_S)
    return 1


def main() -> int:
    """Run the job; return the exit code."""
    config = parse_flags()
    hvd.init()
    try:
        if config.summary is not None and hvd.rank() == 0:
            check_writable(config.summary)
        trainer = DataParallelTrainer(config)
        if trainer.advice and hvd.rank() == 0:
            print(trainer.advice, flush=True)
        summary = trainer.train()
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
        return fail(str(error))
    except HorovodInternalError:
        return fail("stopped: another rank has ended; what it printed tells why")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Train a network on all ranks with float or ternary gradients.

    mpirun -np 2 python jobs/train_data_parallel.py --compression ternary
    mpirun -np 2 python jobs/train_data_parallel.py --data mnist --data-dir DIR
    horovodrun --gloo -np 2 python jobs/train_data_parallel.py --logdir runs/ternary
    mpirun -np 2 python jobs/train_data_parallel.py --checkpoint-dir runs/checkpoints
    python -m knet_hvd elastic --min-np 2 --host-discovery-script ./hosts.sh -- \
        python jobs/train_data_parallel.py --elastic

--summary writes the results as JSON, --logdir the curves and gradient histograms for
TensorBoard. With --checkpoint-dir, the same command continues where it was stopped; after
SIGUSR1 or SIGTERM the job saves its state and exits with code 75. With --elastic, it
continues without workers that die, and takes in new ones. Other exit codes: 0 done, 1 an
error, 2 a wrong flag.
"""

import sys

from knet_hvd.training.cli import say_start, wrong_flags_refused


def main() -> int:
    """Run the job; return the exit code."""
    with wrong_flags_refused():
        # Within: a missing package is told as a wrong flag is.
        from knet_hvd.training.data_parallel.flags import parse_config

        config = parse_config(sys.argv[1:], __doc__)
    say_start(f"{config.model} and {config.data}")
    # These import torch, MPI and Horovod: seconds that a wrong flag need not wait for.
    from knet_hvd.training.data_parallel.job import DataParallelJob
    from knet_hvd.training.program import run_job

    return run_job(DataParallelJob(config))


if __name__ == "__main__":
    sys.exit(main())

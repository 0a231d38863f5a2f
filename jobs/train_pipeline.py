"""Train a network that is cut into stages, one on each rank.

    mpirun -np 2 python jobs/train_pipeline.py --stages 2 --decoupler local
    mpirun -np 4 python jobs/train_pipeline.py --stages 4 --model vgg16 --width 0.5
    mpirun -np 2 python jobs/train_pipeline.py --decoupler synthetic --logdir runs/dni
    mpirun -np 4 python jobs/train_pipeline.py --stages 2 --replicas 2
    mpirun -np 2 python jobs/train_pipeline.py --checkpoint-dir runs/checkpoints

--summary writes the results as JSON, --logdir the curves of each stage for TensorBoard.
With --checkpoint-dir, the same command continues where it was stopped; after SIGUSR1 or
SIGTERM the job saves its state and exits with code 75. Other exit codes: 0 done, 1 an
error, 2 a wrong flag.
"""

import sys

from knet_hvd.training.cli import say_start, wrong_flags_refused


def main() -> int:
    """Run the job; return the exit code."""
    with wrong_flags_refused():
        # Within: a missing package is told as a wrong flag is.
        from knet_hvd.training.pipeline.flags import parse_config

        config = parse_config(sys.argv[1:], __doc__)
    say_start(f"{config.model} and {config.data}")
    # These import torch and MPI: seconds that a wrong flag need not wait for.
    from knet_hvd.training.pipeline.job import PipelineJob
    from knet_hvd.training.program import run_job

    return run_job(PipelineJob(config))


if __name__ == "__main__":
    sys.exit(main())

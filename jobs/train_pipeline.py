"""Train an image classifier that is cut into stages, one on each rank.

    mpirun -np 2 python jobs/train_pipeline.py --stages 2 --decoupler local
    mpirun -np 4 python jobs/train_pipeline.py --stages 4 --model vgg16 --width 0.5
    mpirun -np 2 python jobs/train_pipeline.py --decoupler synthetic --logdir runs/dni
    mpirun -np 4 python jobs/train_pipeline.py --stages 2 --replicas 2
    mpirun -np 2 python jobs/train_pipeline.py --checkpoint-dir runs/checkpoints

Prints a line for each run; --summary writes the results as JSON, --logdir the curves of
each stage for TensorBoard. With --checkpoint-dir, the same command goes on where it was
stopped; after SIGUSR1 or SIGTERM the job saves its state and exits with code 75. Other
exit codes: 0 done, 1 an error or a wrong flag.
"""

import os
import sys
import time
from contextlib import nullcontext

import tyro

from knet_hvd.checkpoint import STOPPED_EXIT_CODE, StopSignals
from knet_hvd.comm import World, abort
from knet_hvd.errors import KnetError, PreemptionError
from knet_hvd.files import check_writable, write_json_atomic
from knet_hvd.launcher import end_launcher_later, explained_termination
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.trainer import PipelineTrainer

GRACE_S = 2.0
LOST = "stopped by the launcher: it ends all ranks when one is lost"


def parse_flags() -> PipelineConfig:
    """Return the configuration; on a wrong flag, exit once all ranks could say so."""
    try:
        return tyro.cli(PipelineConfig, description=__doc__)
    except SystemExit as stop:
        if stop.code:
            time.sleep(GRACE_S)
            sys.stdout.flush()
            os._exit(1)  # an orderly exit would wait in MPI for the other ranks
        raise


def reason(rank: int, message: str) -> str:
    """Return the line that tells why a rank stops."""
    return f"train_pipeline: rank {rank}: {message}"


def run(config: PipelineConfig, world: World, signals: StopSignals) -> None:
    """Train and report."""
    if config.summary is not None and world.rank == 0:
        check_writable(config.summary)
    trainer = PipelineTrainer(config, world, signals)
    measured = config.placement == "measured" and not config.cuts
    if measured and not trainer.resumed_step and world.rank == 0:
        print(trainer.plan_table(), flush=True)
    if trainer.resumed_step and world.rank == 0:
        print(f"going on after step {trainer.resumed_step}", flush=True)
    summary = trainer.train()
    if world.rank == 0:
        if config.summary is not None:
            write_json_atomic(config.summary, summary)
        idle = ", ".join(f"{s['idle_fraction']:.0%}" for s in summary["stages"])
        print(
            f"{config.model} on {config.data}, {summary['num_stages']} stages, "
            f"{config.decoupler}: train accuracy {summary['train_accuracy']:.4f}, "
            f"test accuracy {summary['test_accuracy']:.4f}, "
            f"{summary['samples_per_second']:.0f} samples/s, "
            f"{summary['bytes_per_step'] / 1e3:.1f} kB a step, idle {idle}"
        )
    trainer.close()


def main() -> int:
    """Run the job; return the exit code."""
    config = parse_flags()
    # Without a folder to save to, a signal ends the job as it ends any program.
    saves = config.checkpoint_dir is not None
    rank = 0
    with StopSignals() if saves else StopSignals(()) as signals:
        try:
            world = World(config.timeout_s)
            rank = world.rank
            with nullcontext() if saves else explained_termination(reason(rank, LOST)):
                run(config, world, signals)
        except PreemptionError as stop:
            if rank == 0:
                print(f"train_pipeline: {stop}", file=sys.stderr, flush=True)
            time.sleep(GRACE_S)  # the launcher ends all ranks when the first has ended
            return STOPPED_EXIT_CODE
        except (KnetError, ValueError) as error:
            print(reason(rank, str(error)), file=sys.stderr, flush=True)
            end_launcher_later()
            time.sleep(GRACE_S)  # all ranks say why before the launcher ends them
            abort()
    return 0


if __name__ == "__main__":
    sys.exit(main())

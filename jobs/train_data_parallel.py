"""Train an image classifier on all ranks with float or ternary gradients.

    mpirun -np 2 python jobs/train_data_parallel.py --compression ternary
    mpirun -np 2 python jobs/train_data_parallel.py --data mnist --data-dir DIR
    horovodrun --gloo -np 2 python jobs/train_data_parallel.py --logdir runs/ternary
    mpirun -np 2 python jobs/train_data_parallel.py --checkpoint-dir runs/checkpoints
    python -m knet_hvd elastic --min-np 2 --host-discovery-script ./hosts.sh -- \
        python jobs/train_data_parallel.py --elastic

Prints a line for each run; --summary writes the results as JSON, --logdir the curves
and gradient histograms for TensorBoard. With --checkpoint-dir, the same command goes on
where it was stopped; after SIGUSR1 or SIGTERM the job saves its state and exits with
code 75. With --elastic, it goes on without workers that die, and takes in new ones.
Other exit codes: 0 done, 1 an error, 2 a wrong flag.
"""

import os
import sys
import time
from typing import Any

import horovod.torch as hvd
import tyro
from horovod.common.exceptions import HorovodInternalError

from knet_hvd.checkpoint import STOPPED_EXIT_CODE, StopSignals
from knet_hvd.errors import KnetError, PreemptionError
from knet_hvd.files import check_writable, write_json_atomic
from knet_hvd.launcher import end_launcher_later
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.trainer import DataParallelTrainer
from knet_hvd.training.elastic.worker.loop import check_launcher, train_elastically
from knet_hvd.training.watchdog import Watchdog

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
    end_launcher_later()
    time.sleep(GRACE_S)
    return 1


def give_up(message: str) -> None:
    """End this process at once: its main thread waits for a rank that hangs."""
    fail(message)
    os._exit(1)


def run(config: TrainingConfig, signals: StopSignals, watchdog: Watchdog) -> None:
    """Train and report."""
    if config.summary is not None and hvd.rank() == 0:
        check_writable(config.summary)
    if config.elastic:
        report(config, train_elastically(config, watchdog.progress))
        return
    trainer = DataParallelTrainer(config, signals, watchdog.progress)
    if trainer.advice and hvd.rank() == 0:
        print(trainer.advice, flush=True)
    if trainer.resumed_step and hvd.rank() == 0:
        print(f"going on after step {trainer.resumed_step}", flush=True)
    report(config, trainer.train())
    trainer.close()


def report(config: TrainingConfig, summary: dict[str, Any]) -> None:
    """Write the results, on rank 0."""
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
        if config.elastic:
            sizes = ", ".join(map(str, summary["sizes"]))
            print(
                f"{summary['resets']} resets: {sizes} workers, {summary['steps_lost']} "
                "steps made twice"
            )


def main() -> int:
    """Run the job; return the exit code."""
    config = parse_flags()
    # Without a folder to save to, a signal ends the job as it ends any program.
    saves = config.checkpoint_dir is not None
    with StopSignals() if saves else StopSignals(()) as signals:
        hvd.init()
        try:
            check_launcher(config)
            with Watchdog(config.timeout_s, give_up) as watchdog:
                run(config, signals, watchdog)
        except PreemptionError as stop:
            if hvd.rank() == 0:
                print(f"train_data_parallel: {stop}", file=sys.stderr, flush=True)
            time.sleep(GRACE_S)  # the launcher ends all ranks when the first has ended
            return STOPPED_EXIT_CODE
        except (KnetError, ValueError) as error:
            return fail(str(error))
        except HorovodInternalError:
            return fail("stopped: another rank has ended; what it printed tells why")
    return 0


if __name__ == "__main__":
    sys.exit(main())

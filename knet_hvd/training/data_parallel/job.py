"""The data-parallel job: what ``jobs/train_data_parallel.py`` runs."""

import os
import time
from typing import Any

import horovod.torch as hvd
from horovod.common.exceptions import HorovodInternalError

from knet_hvd.checkpoint import StopSignals
from knet_hvd.errors import KnetError
from knet_hvd.launcher import end_launcher_later
from knet_hvd.training.cli import GRACE_S, job_name, report, say, warn_if_alone
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.run import open_trainer
from knet_hvd.training.elastic.worker.loop import check_launcher, train_elastically
from knet_hvd.training.program import FAILED_EXIT_CODE, Job, figures_text, reason
from knet_hvd.training.watchdog import Watchdog


class DataParallelJob(Job[TrainingConfig]):
    """Train one model on all ranks of Horovod, and report."""

    def run(self, signals: StopSignals) -> None:
        """Train and report: see ``Job``."""
        config = self.config
        hvd.init()
        self.rank = hvd.rank()
        check_launcher(config)
        self.check_summary()
        if not config.elastic:
            warn_if_alone(hvd.size(), "no gradient crosses a network")
        try:
            with Watchdog(config.timeout_s, self._give_up) as watchdog:
                if config.elastic:
                    self._report(train_elastically(config, watchdog.progress))
                else:
                    self._train(signals, watchdog)
        except HorovodInternalError as error:
            raise KnetError("stopped: another rank has ended; what it printed tells why") from error

    def _train(self, signals: StopSignals, watchdog: Watchdog) -> None:
        trainer = open_trainer(self.config, signals, watchdog.progress)
        if self.rank == 0:
            say(f"{job_name()}: {trainer.task.devices}")
        if trainer.task.advice and self.rank == 0:
            report(trainer.task.advice)
        if trainer.resumed_step and self.rank == 0:
            report(trainer.resumed_text)
        self._report(trainer.train())
        trainer.close()

    def _give_up(self, message: str) -> None:
        """End this process at once: its main thread waits for a rank that hangs."""
        say(reason(self.rank, message))
        end_launcher_later()
        time.sleep(GRACE_S)
        os._exit(FAILED_EXIT_CODE)

    def _report(self, summary: dict[str, Any]) -> None:
        """Write the results, on rank 0."""
        # Workers of an elastic job get other ranks when the first ones are lost.
        self.rank = hvd.rank()
        if self.rank:
            return
        config = self.config
        speed = f"{summary['samples_per_second']:.0f} samples/s, "
        report(
            f"{config.model} on {config.data}, {summary['num_ranks']} ranks, "
            f"{config.compression}: {figures_text(summary)}, "
            f"{speed if summary['samples_per_second'] else ''}"
            f"{summary['wire_bytes_per_step'] / 1e3:.1f} kB per step and rank "
            f"({summary['compression_ratio']:.1f} times fewer than fp32)"
        )
        if config.elastic:
            sizes = ", ".join(map(str, summary["sizes"]))
            report(
                f"{summary['resets']} resets: {sizes} workers, {summary['steps_lost']} "
                "steps made twice"
            )
        self.write_summary(summary)

    def leave(self, message: str) -> None:
        """Give all ranks time to say why they stop; Horovod's own end tells the others."""
        time.sleep(GRACE_S)

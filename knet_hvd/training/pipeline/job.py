"""The pipeline job: what ``jobs/train_pipeline.py`` runs."""

from contextlib import nullcontext
from typing import Any

from knet_hvd.checkpoint import StopSignals
from knet_hvd.comm import World
from knet_hvd.comm.world import leave
from knet_hvd.launcher import explained_termination
from knet_hvd.training.cli import GRACE_S, job_name, report, say, warn_if_alone
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from knet_hvd.training.program import Job, figures_text, reason

_LOST = "stopped by the launcher: it ends all ranks when one is lost"


class PipelineJob(Job[PipelineConfig]):
    """Train one stage of a network on each rank, and report."""

    _world: World | None = None

    def run(self, signals: StopSignals) -> None:
        """Train and report: see ``Job``."""
        world = World(self.config.timeout_s, self.config.start_timeout_s)
        self._world, self.rank = world, world.rank
        # With a folder for checkpoints the launcher's signal makes the job save its state.
        explained = explained_termination(reason(self.rank, _LOST))
        with nullcontext() if self.saves_state else explained:
            self._train(world, signals)

    def _train(self, world: World, signals: StopSignals) -> None:
        config = self.config
        self.check_summary()
        warn_if_alone(world.size, "a network of one stage")
        trainer = open_trainer(config, world, signals)
        if self.rank == 0:
            say(f"{job_name()}: {trainer.task.devices}")
            if trainer.resumed_step:
                report(trainer.resumed_text)
            elif config.placement == "measured" and not config.cuts:
                report(trainer.task.plan_table())
        summary = trainer.train()
        if self.rank == 0:
            self._report(summary)
        trainer.close()

    def _report(self, summary: dict[str, Any]) -> None:
        config = self.config
        idle = ", ".join(f"{stage['idle_fraction']:.0%}" for stage in summary["stages"])
        stages = summary["num_stages"]
        speed = (
            f", {summary['samples_per_second']:.0f} samples/s, "
            f"{summary['bytes_per_step'] / 1e3:.1f} kB per step, idle {idle}"
        )
        report(
            f"{config.model} on {config.data}, {stages} stage{'s' if stages > 1 else ''}, "
            f"{config.decoupler.name}: {figures_text(summary)}"
            f"{speed if summary['samples_per_second'] else ''}"
        )
        self.write_summary(summary)

    def leave(self, message: str) -> None:
        """Tell the others why, and end this rank with them, or end those that stay."""
        if self._world is not None:
            self._world.notices.fail(message)
        leave(GRACE_S)

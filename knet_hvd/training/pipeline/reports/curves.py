"""What a stage shows in TensorBoard: one run for each stage."""

from knet_hvd.comm import World
from knet_hvd.flat_config import Scalar
from knet_hvd.metrics import MetricLogger, StepSpan, open_logger
from knet_hvd.metrics.figures import pixels
from knet_hvd.pipeline.placement.figure import draw_plan
from knet_hvd.pipeline.placement.planning import plan_table
from knet_hvd.pipeline.stage_scalars import StageScalars
from knet_hvd.training.loop.task import Curves
from knet_hvd.training.pipeline.build import StageJob
from knet_hvd.training.pipeline.config import PipelineConfig


class StageCurves(Curves):
    """Write a stage's scalars; of its replicas, the first one writes."""

    result_tags = ("wire/bytes_per_step",)

    def __init__(self, config: PipelineConfig, job: StageJob, world: World) -> None:
        """Take what knows loss, staleness, bytes and waits.

        Args:
            config: The job's configuration.
            job: What this rank trains with.
            world: Knows the time waited.
        """
        self._config = config
        self._job = job
        self._scalars = StageScalars(world, job.built.runner, job.built.links, job.replicas)

    def open(self, first_step: int | None) -> MetricLogger:
        """Open the stage's run, `stage0` and so on, and write which blocks are where.

        Raises:
            ValueError: If the folder cannot be written.
            KnetError: If the placement cannot be drawn without matplotlib.
        """
        job, logdir = self._job, self._config.logdir
        if logdir is not None:
            logdir = logdir / f"stage{job.stage.index}"
        logger = open_logger(logdir, job.replicas.index, first_step)
        logger.text("placement", plan_table(job.member.plan, job.member.block_names), 0)
        if logdir is not None and job.replicas.index == 0 and job.stage.is_first:
            logger.image("placement", pixels(draw_plan(job.member.plan, job.member.block_names)), 0)
        return logger

    def identity(self) -> dict[str, Scalar]:
        """Return where gradients come from, and the number of stages."""
        return {
            "decoupler": self._config.decoupler.name,
            "num_stages": self._job.stage.num_stages,
        }

    def restart(self) -> None:
        """Start to measure again, after a report or an evaluation."""
        self._scalars.restart()

    def scalars(self, span: StepSpan) -> dict[str, float]:
        """Return what the steps since the last report showed, by tag."""
        return self._scalars.since(span)

    def before_step(self, step: int) -> None:
        """Do nothing: a stage draws nothing but numbers."""

    def after_step(self, step: int, logger: MetricLogger) -> None:
        """Do nothing: see ``before_step``."""

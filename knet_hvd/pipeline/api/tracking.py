"""What a pipeline shows in TensorBoard: one run for each stage."""

from pathlib import Path

from knet_hvd.metrics import MetricLogger, StepSpan, open_logger
from knet_hvd.pipeline.api.member import Member
from knet_hvd.pipeline.placement.planning import plan_table
from knet_hvd.pipeline.stage_scalars import StageScalars


class Tracking:
    """Write the curves of this rank's stage; of its replicas, the first one writes."""

    def __init__(self, member: Member, logdir: str | Path | None, log_every: int) -> None:
        """Open the stage's run, and write which blocks are where.

        Args:
            member: This rank.
            logdir: Holds a run for each stage, `stage0` and so on; nothing is written if
                not given.
            log_every: Steps between two points of a curve.

        Raises:
            ValueError: If the folder cannot be written, or there are no steps between points.
        """
        if log_every < 1:
            raise ValueError(f"log_every: expected 1 or more, got {log_every}")
        self._member, self._log_every = member, log_every
        self._folder = None if logdir is None else Path(logdir) / f"stage{member.stage.index}"
        self._span = StepSpan()
        self._scalars: StageScalars | None = None
        self._logger = self._opened()

    def _opened(self, first_step: int | None = None) -> MetricLogger:
        member = self._member
        logger = open_logger(self._folder, member.replicas.index, first_step)
        logger.text("placement", plan_table(member.plan, member.block_names), first_step or 0)
        return logger

    def continue_after(self, step: int) -> None:
        """Leave out what the run before wrote for this step and later ones."""
        self._logger.close()
        self._logger = self._opened(step)
        self._restart()

    def after_step(self, step: int, num_samples: int) -> None:
        """Write what the step showed, if it is time.

        Args:
            step: Number of the step, from 0.
            num_samples: Of the step, on all replicas.
        """
        self._span.add_step(num_samples)
        if self._scalars is None:  # links are opened with the first batch
            self._scalars = self._member.scalars()
        if step % self._log_every == 0:
            rate = {"throughput/samples_per_s": self._span.samples_per_s}
            self._logger.scalars(self._scalars.since(self._span) | rate, step)
            self._restart()

    def after_evaluation(self, name: str, value: float, step: int) -> None:
        """Write the mean of a metric, on the last stage.

        Args:
            name: Of the metric.
            value: Its mean.
            step: Steps made so far.
        """
        if self._member.stage.is_last:
            self._logger.scalars({f"evaluation/{name}": value}, step)
        self._restart()

    def _restart(self) -> None:
        self._span.restart()
        if self._scalars is not None:
            self._scalars.restart()

    def close(self) -> None:
        """Write out what is pending."""
        self._logger.close()

"""What a stage shows in TensorBoard: one run for each stage."""

from collections.abc import Sequence

from knet_hvd.comm import World
from knet_hvd.metrics import MetricLogger, StepSpan, open_logger
from knet_hvd.metrics.figures import pixels
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.placement.figure import draw_plan
from knet_hvd.pipeline.placement.planning import plan_table
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.training.pipeline.config import PipelineConfig


class StageMonitor:
    """Write a stage's scalars every ``log_every`` steps; nothing without ``logdir``."""

    def __init__(
        self,
        config: PipelineConfig,
        runner: Runner,
        links: StageLinks,
        world: World,
        replicas: Replicas,
        first_step: int | None = None,
    ) -> None:
        """Open the stage's run, `stage0` and so on.

        Args:
            config: The job's configuration.
            runner: Knows loss, staleness and the quality of synthetic gradients.
            links: Know the bytes.
            world: Knows the time waited.
            replicas: Of this stage; the first one writes.
            first_step: Of a run that goes on: see `open_logger`.

        Raises:
            ValueError: If the folder cannot be written.
        """
        self._config = config
        self._replicas = replicas
        self._runner = runner
        self._links = links
        self._waiter = world.waiter
        self._span = StepSpan()
        index = runner.stage.index
        logdir = None if config.logdir is None else config.logdir / f"stage{index}"
        self.logger: MetricLogger = open_logger(logdir, replicas.index, first_step)
        self.logger.text("configuration", config.table(), 0)
        self.restart()

    def placement(self, plan: Plan, names: Sequence[str]) -> None:
        """Write which blocks are where: a table, and in the first stage a picture.

        Args:
            plan: The plan.
            names: Of the blocks.

        Raises:
            KnetError: If the picture cannot be drawn without matplotlib.
        """
        self.logger.text("placement", plan_table(plan, names), 0)
        writes = self._config.logdir is not None and self._replicas.index == 0
        if writes and self._runner.stage.is_first:
            self.logger.image("placement", pixels(draw_plan(plan, names)), 0)

    def restart(self) -> None:
        """Restart the measurement, after a report or an evaluation."""
        self._span.restart()
        self._mark = (self._waiter.idle_s, self._links.sent_bytes)

    def after_step(self, step: int, num_samples: int) -> None:
        """Write what the steps since the last time showed.

        Args:
            step: The number of the step.
            num_samples: Its images on this replica.
        """
        self._span.add_step(num_samples * self._replicas.number)
        if self._config.logdir is None or (step + 1) % self._config.log_every:
            return
        idle_s, sent_bytes = self._mark
        scalars = {
            "stage/idle_share": (self._waiter.idle_s - idle_s) / self._span.elapsed_s,
            "stage/staleness_steps": float(self._runner.staleness),
            "wire/bytes_per_step": (self._links.sent_bytes - sent_bytes) / self._span.steps,
            "throughput/samples_per_s": self._span.samples_per_s,
        }
        if self._replicas.number > 1:
            scalars["wire/gradient_bytes_per_step"] = self._replicas.gradient_bytes
        for name, value in self._runner.gradient_source.metrics.items():
            scalars[self._tag(name)] = float(value)
        self.logger.scalars(scalars, step)
        self.restart()

    def _tag(self, metric: str) -> str:
        """Return where a decoupler's metric belongs: a local loss is not the network's."""
        if metric != "loss":
            return f"synthetic_gradient/{metric}"
        return "train/loss" if self._runner.stage.is_last else "stage/local_loss"

    def after_epoch(self, accuracy: float, step: int) -> None:
        """Write the test accuracy, which the last stage knows."""
        self.logger.scalars({"test/accuracy": accuracy}, step)

    def finish(self) -> None:
        """Write the run's row of the hyperparameter table, beside the accuracy's curve."""
        if not self._runner.stage.is_last:
            return
        config = self._config
        self.logger.hparams(
            config.hyperparameters(
                decoupler=config.decoupler.name, num_stages=self._runner.stage.num_stages
            ),
            ["test/accuracy", "throughput/samples_per_s", "wire/bytes_per_step"],
        )

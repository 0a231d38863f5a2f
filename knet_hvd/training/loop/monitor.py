"""What a run shows in TensorBoard."""

from collections.abc import Mapping

from knet_hvd.metrics import MetricLogger, StepSpan
from knet_hvd.training.config import JobConfig
from knet_hvd.training.loop.task import Curves


class Monitor:
    """Write the curves of both jobs, and those that a job adds.

    Without ``--logdir``, and on ranks that do not write, this costs nothing.

    Attributes:
        logger: Writes; used as a context, the monitor closes it.
    """

    def __init__(self, config: JobConfig, curves: Curves, first_step: int | None) -> None:
        """Open a run, and write its configuration.

        Args:
            config: The job's.
            curves: What the job adds.
            first_step: See ``open_logger``.

        Raises:
            ValueError: If the folder cannot be written.
        """
        self._config = config
        self._curves = curves
        self._span = StepSpan()
        self.logger = curves.open(first_step)
        self.logger.text("configuration", config.table(), 0)
        self._active = type(self.logger) is not MetricLogger

    def __enter__(self) -> "Monitor":
        """Return the monitor."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write out what is pending."""
        self.logger.close()

    def restart(self) -> None:
        """Restart rates, after a report or after an evaluation, which is no training."""
        self._span.restart()
        self._curves.restart()

    def before_step(self, step: int) -> None:
        """Prepare what this step will draw."""
        if self._active:
            self._curves.before_step(step)

    def after_step(self, step: int, num_samples: int) -> None:
        """Write what the step showed, if it is time.

        Args:
            step: The number of the step.
            num_samples: Its samples on all ranks.
        """
        self._span.add_step(num_samples)
        if not self._active:
            return
        if step % self._config.log_every == 0:
            throughput = {"throughput/samples_per_s": self._span.samples_per_s}
            self.logger.scalars(self._curves.scalars(self._span) | throughput, step)
            self.restart()
        self._curves.after_step(step, self.logger)

    def after_epoch(self, test: Mapping[str, float], step: int) -> None:
        """Write loss and metrics on the test split; on ranks that know them."""
        self.logger.scalars({f"test/{name}": value for name, value in test.items()}, step)

    def finish(self, test: Mapping[str, float]) -> None:
        """Write the run's row of the hyperparameter table, beside the curves of its figures."""
        figures = [f"test/{name}" for name in test]
        tags = [*figures, "throughput/samples_per_s", *self._curves.result_tags]
        self.logger.hparams(self._config.hyperparameters(**self._curves.identity()), tags)

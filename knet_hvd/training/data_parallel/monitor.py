"""What a training run shows in TensorBoard."""

from typing import Any

from torch import Tensor

from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer
from knet_hvd.metrics import MetricLogger, StepSpan
from knet_hvd.training.data_parallel.config import TrainingConfig

_HISTOGRAMS = ("original", "clipped", "ternary", "averaged")
"""A gradient on its way from a rank's backward pass to the optimizer."""


class TrainingMonitor:
    """Write scalars, and the four gradient histograms of the TernGrad paper.

    With the logger that does nothing (no ``--logdir``, or not rank 0), this costs
    nothing either: no snapshot is taken.
    """

    def __init__(
        self, config: TrainingConfig, logger: MetricLogger, optimizer: AveragingOptimizer
    ) -> None:
        """Write the run's configuration; the logger does nothing on all ranks but 0."""
        self._config = config
        self._logger = logger
        self._optimizer = optimizer
        self._wire_bytes = optimizer.wire_bytes
        self._span = StepSpan()
        self._active = type(logger) is not MetricLogger
        logger.text("configuration", config.table(), 0)

    def _draws(self, step: int) -> bool:
        every = self._config.histogram_every
        return self._active and every > 0 and step % every == 0

    def before_step(self, step: int) -> None:
        """Ask for snapshots if this step's histograms will be drawn."""
        if self._active:
            self._optimizer.request_snapshots(self._layers() if self._draws(step) else ())

    def _layers(self) -> tuple[str, ...]:
        if self._config.histogram_layers:
            return self._config.histogram_layers
        names = self._optimizer.ternary_names
        return (names[0], names[-1]) if names else ()

    def after_step(self, step: int, loss: Tensor, num_samples: int) -> None:
        """Write what the step showed."""
        self._span.add_step(num_samples)
        if self._active and step % self._config.log_every == 0:
            scalars = {
                "train/loss": float(loss),
                "train/learning_rate": float(self._optimizer.param_groups[0]["lr"]),
                "throughput/samples_per_s": self._span.samples_per_s,
                "wire/bytes_per_step": self._wire_bytes.compressed,
                "wire/compression_ratio": self._wire_bytes.ratio,
            }
            for name, scales in self._optimizer.scales.items():
                scalars[f"scale/{name}"] = float(scales.mean())
            self._logger.scalars(scalars, step)
            self._span.restart()
        if self._draws(step):
            self._write_histograms(step)

    def _write_histograms(self, step: int) -> None:
        for name, snapshot in self._optimizer.snapshots.items():
            # Numbered, since TensorBoard sorts them by name.
            for number, kind in enumerate(_HISTOGRAMS, start=1):
                values = getattr(snapshot, kind)
                self._logger.histogram(f"gradient/{name}/{number} {kind}", values, step)

    def after_epoch(self, accuracy: float, step: int) -> None:
        """Write the test accuracy; what the evaluation took is no training."""
        self._logger.scalars({"test/accuracy": accuracy}, step)
        self._span.restart()

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the run's row of the hyperparameter table."""
        config = self._config
        self._logger.hparams(
            config.hyperparameters(
                compression=config.compression, num_ranks=int(summary["num_ranks"])
            ),
            ["test/accuracy", "throughput/samples_per_s", "wire/compression_ratio"],
        )

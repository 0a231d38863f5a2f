"""What a data-parallel run adds to its curves: gradients, their scales and their bytes."""

import horovod.torch as hvd

from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer
from knet_hvd.flat_config import Scalar
from knet_hvd.metrics import MetricLogger, StepSpan, open_logger
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.state import DataParallelState
from knet_hvd.training.loop.task import Curves

_HISTOGRAMS = ("original", "clipped", "ternary", "averaged")
"""A gradient on its way from a rank's backward pass to the optimizer."""


class GradientCurves(Curves):
    """Write scalars, and the four gradient histograms of the TernGrad paper, on rank 0."""

    result_tags = ("wire/compression_ratio",)

    def __init__(
        self, config: TrainingConfig, state: DataParallelState, optimizer: AveragingOptimizer
    ) -> None:
        """Take what knows the loss and what knows the gradients."""
        self._config = config
        self._state = state
        self._optimizer = optimizer
        self._wire_bytes = optimizer.wire_bytes

    def open(self, first_step: int | None) -> MetricLogger:
        """Open the run of rank 0: see ``Curves``."""
        return open_logger(self._config.logdir, hvd.rank(), first_step)

    def identity(self) -> dict[str, Scalar]:
        """Return how gradients cross, and between how many ranks."""
        return {"compression": self._config.compression, "num_ranks": hvd.size()}

    def scalars(self, span: StepSpan) -> dict[str, float]:
        """Return what the latest step showed, by tag."""
        scalars = {
            "train/loss": float(self._state.loss),
            "train/learning_rate": float(self._optimizer.param_groups[0]["lr"]),
            "wire/bytes_per_step": self._wire_bytes.compressed,
            "wire/compression_ratio": self._wire_bytes.ratio,
        }
        for name, scales in self._optimizer.scales.items():
            scalars[f"scale/{name}"] = float(scales.mean())
        return scalars

    def restart(self) -> None:
        """Do nothing: all that is shown is of a single step."""

    def _draws(self, step: int) -> bool:
        every = self._config.histogram_every
        return every > 0 and step % every == 0

    def before_step(self, step: int) -> None:
        """Ask for snapshots if this step's histograms will be drawn."""
        self._optimizer.request_snapshots(self._layers() if self._draws(step) else ())

    def _layers(self) -> tuple[str, ...]:
        if self._config.histogram_layers:
            return self._config.histogram_layers
        names = self._optimizer.ternary_names
        return (names[0], names[-1]) if names else ()

    def after_step(self, step: int, logger: MetricLogger) -> None:
        """Draw the histograms of this step."""
        if not self._draws(step):
            return
        for name, snapshot in self._optimizer.snapshots.items():
            # Numbered, since TensorBoard sorts them by name.
            for number, kind in enumerate(_HISTOGRAMS, start=1):
                values = getattr(snapshot, kind)
                logger.histogram(f"gradient/{name}/{number} {kind}", values, step)

"""Metric loggers: one that writes for TensorBoard and one that does nothing.

Call sites hold a `MetricLogger` and never ask for their rank. TensorBoard is
imported here only, and only where something is written.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from knet_hvd.errors import KnetError
from knet_hvd.flat_config import Scalar


class MetricLogger:
    """Take every metric and do nothing: the logger of all ranks but one."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers.

        Args:
            values: The numbers by tag; a tag's part before "/" is its group.
            step: The training step that they belong to.
        """

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Record the distribution of a tensor's finite values.

        Args:
            tag: The name of the histogram.
            values: Of any shape and floating-point or integer type. If no value
                is finite, nothing is recorded.
            step: The training step that they belong to.
        """

    def text(self, tag: str, content: str, step: int) -> None:
        """Record a text.

        Args:
            tag: The name of the text.
            content: Markdown.
            step: The training step that it belongs to.
        """

    def image(self, tag: str, pixels: Tensor, step: int) -> None:
        """Record an image.

        Args:
            tag: The name of the image.
            pixels: [height, width, 3], uint8, red, green and blue.
            step: The training step that it belongs to.

        Raises:
            ValueError: The shape or the type is another one.
        """

    def hparams(self, config: Mapping[str, Scalar], metrics: Sequence[str]) -> None:
        """Record a run's settings and which of its curves to compare runs by.

        Args:
            config: The settings, for instance those that differ from the defaults.
            metrics: Tags of scalars, whose last values are the run's results. Curves
                that there are anyway: a scalar of its own would be a card with one point.

        Raises:
            TypeError: A setting is not bool, int, float or str.
        """

    def flush(self) -> None:
        """Write out what is pending."""

    def close(self) -> None:
        """Write out what is pending; the logger takes nothing afterwards."""

    def __enter__(self) -> "MetricLogger":
        """Return the logger."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the logger."""
        self.close()


class TensorBoardLogger(MetricLogger):
    """Write metrics to an event file for TensorBoard."""

    def __init__(self, logdir: Path, first_step: int | None = None) -> None:
        """Start an event file.

        Args:
            logdir: The directory of the run; it is made if missing.
            first_step: Of a run that continues: TensorBoard then leaves out what the run
                before it wrote for this step and later ones.

        Raises:
            ValueError: The directory cannot be written.
            KnetError: The package `tensorboard` is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise KnetError(
                "writing metrics needs the package tensorboard: pip install "
                "tensorboard, or give no log directory"
            ) from error
        # The writer works in a thread of its own, where an error would come
        # late and with a long traceback.
        _check_writable(logdir)
        self._writer = SummaryWriter(str(logdir), purge_step=first_step)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers: see `MetricLogger.scalars`."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, float(value), step)

    def histogram(self, tag: str, values: Tensor, step: int) -> None:
        """Record a distribution: see `MetricLogger.histogram`."""
        # TensorBoard knows neither bfloat16 nor NaN, and a run that diverges
        # is one whose histograms are wanted.
        numbers = values.detach().to(torch.float32).flatten()
        numbers = numbers[torch.isfinite(numbers)]
        if numbers.numel() > 0:
            self._writer.add_histogram(tag, numbers, step)

    def text(self, tag: str, content: str, step: int) -> None:
        """Record a text: see `MetricLogger.text`."""
        self._writer.add_text(tag, content, step)

    def image(self, tag: str, pixels: Tensor, step: int) -> None:
        """Record an image: see `MetricLogger.image`."""
        # TensorBoard would take other types for brightness from 0 to 1.
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"pixels must be uint8 [height, width, 3], got {pixels.dtype} {list(pixels.shape)}"
            )
        self._writer.add_image(tag, pixels.numpy(), step, dataformats="HWC")

    def hparams(self, config: Mapping[str, Scalar], metrics: Sequence[str]) -> None:
        """Record settings and results: see `MetricLogger.hparams`."""
        from torch.utils.tensorboard import summary

        for name, value in config.items():
            if not isinstance(value, bool | int | float | str):
                raise TypeError(
                    f"setting {name!r} must be bool, int, float or str, got "
                    f"{type(value).__name__!r}: flatten it with to_flat_dict"
                )
        # Not SummaryWriter.add_hparams: it starts a second run in a
        # subdirectory, apart from the curves of this one.
        # torch has no type hints for either.
        build: Any = summary.hparams
        file_writer: Any = self._writer.file_writer
        for message in build(dict(config), dict.fromkeys(metrics, 0)):
            file_writer.add_summary(message)

    def flush(self) -> None:
        """Write out what is pending: see `MetricLogger.flush`."""
        self._writer.flush()

    def close(self) -> None:
        """Write out what is pending and close the event file."""
        self._writer.close()


def open_logger(logdir: Path | None, rank: int, first_step: int | None = None) -> MetricLogger:
    """Return the logger of a rank: a real one on rank 0 only.

    Args:
        logdir: The directory of the run, or None to record nothing.
        rank: This process.
        first_step: See `TensorBoardLogger`.

    Returns:
        A `TensorBoardLogger` on rank 0 if there is a directory, else a logger
        that does nothing.

    Raises:
        ValueError: The directory cannot be written.
        KnetError: The package `tensorboard` is not installed.
    """
    if logdir is None or rank != 0:
        return MetricLogger()
    return TensorBoardLogger(logdir, first_step)


def _check_writable(logdir: Path) -> None:
    """Raise ValueError unless a file can be made in the directory."""
    try:
        logdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=logdir):
            pass
    except OSError as error:
        raise ValueError(
            f"log directory {logdir} cannot be written ({error.strerror}): choose another one"
        ) from error

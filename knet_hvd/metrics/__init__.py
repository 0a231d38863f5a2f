"""What a run reports: TensorBoard, progress bars, throughput and bytes."""

from knet_hvd.metrics.loggers import MetricLogger, TensorBoardLogger, open_logger
from knet_hvd.metrics.profiling import profile_steps
from knet_hvd.metrics.progress import ProgressBar, format_bytes, progress
from knet_hvd.metrics.span import StepSpan

__all__ = [
    "MetricLogger",
    "ProgressBar",
    "StepSpan",
    "TensorBoardLogger",
    "format_bytes",
    "open_logger",
    "profile_steps",
    "progress",
]

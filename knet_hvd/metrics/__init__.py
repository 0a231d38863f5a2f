"""What a run reports: TensorBoard, progress bars, throughput and bytes."""

from knet_hvd.metrics.loggers import MetricLogger, TensorBoardLogger, open_logger
from knet_hvd.metrics.profiling import profile_steps
from knet_hvd.metrics.progress import ProgressBar, ThroughputMeter, format_bytes, progress

__all__ = [
    "MetricLogger",
    "ProgressBar",
    "TensorBoardLogger",
    "ThroughputMeter",
    "format_bytes",
    "open_logger",
    "profile_steps",
    "progress",
]

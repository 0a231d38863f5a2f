"""Ternary gradients under PyTorch's DistributedDataParallel, as a communication hook."""

from knet_hvd.ddp.hook import ternary_hook
from knet_hvd.ddp.state import TernaryState

__all__ = ["TernaryState", "ternary_hook"]

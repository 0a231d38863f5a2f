"""The distributed optimizer of a training job, and what it sends."""

from dataclasses import dataclass, replace
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

from knet_hvd.data_parallel.adapter import TernaryCompressor
from knet_hvd.data_parallel.distributed_optimizer import DistributedOptimizer
from knet_hvd.data_parallel.training_config import TrainingConfig
from knet_hvd.performance import allreduce_bytes


@dataclass(slots=True)
class WireBytes:
    """What a rank sends in a step, by formula; see ``performance.wire_bytes``."""

    compressed: float
    uncompressed: float

    @property
    def ratio(self) -> float:
        """Uncompressed over compressed; 1 where nothing is sent."""
        return self.uncompressed / self.compressed if self.compressed else 1.0


def make_optimizer(model: nn.Module, config: TrainingConfig) -> tuple[Any, WireBytes]:
    """Make the optimizer that a training job asks for.

    Args:
        model: Its parameters are trained.
        config: The job's configuration.

    Returns:
        The distributed optimizer, and what it sends in a step.
    """
    parameters = list(model.parameters())
    rate, decay = config.learning_rate, config.weight_decay
    base: torch.optim.Optimizer
    if config.optimizer == "adam":
        base = torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    else:
        momentum = 0.9 if config.optimizer == "momentum" else 0.0
        base = torch.optim.SGD(parameters, rate, momentum, weight_decay=decay)
    names = list(model.named_parameters())
    num_values = sum(p.numel() for p in parameters)
    full = allreduce_bytes(4 * num_values, hvd.size())
    wire_bytes = WireBytes(full / (2 if config.compression == "fp16" else 1), full)
    ternary = replace(config.ternary, seed=(config.ternary.seed + config.seed) % 2**32)
    if config.compression != "ternary":
        optimizer = DistributedOptimizer(base, names, compression=config.compression)
        return optimizer, wire_bytes
    if config.exchange == "allreduce":
        compressor = TernaryCompressor(names, ternary=ternary)
        wire_bytes.compressed = compressor.wire_bytes_per_step
        return hvd.DistributedOptimizer(base, names, compressor), wire_bytes
    optimizer = DistributedOptimizer(
        base, names, ternary=ternary, exchange=config.exchange
    )
    wire_bytes.compressed = optimizer.wire_bytes_per_step
    return optimizer, wire_bytes

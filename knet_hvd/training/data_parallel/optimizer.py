"""The distributed optimizer of a data-parallel job."""

from dataclasses import replace
from typing import Any

import horovod.torch as hvd
import torch
from torch import nn

from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor
from knet_hvd.data_parallel.optimizer.averaging import WireBytes, wire_bytes
from knet_hvd.data_parallel.optimizer.distributed import DistributedOptimizer
from knet_hvd.performance import allreduce_bytes
from knet_hvd.training.data_parallel.config import TrainingConfig


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
    ternary = replace(config.ternary, seed=(config.ternary.seed + config.seed) % 2**32)
    if config.exchange == "allreduce" and config.compression == "ternary":
        full = allreduce_bytes(4 * sum(p.numel() for p in parameters), hvd.size())
        compressor = TernaryCompressor(names, ternary=ternary)
        optimizer = hvd.DistributedOptimizer(base, names, compressor)
        return optimizer, WireBytes(compressor.wire_bytes_per_step, full)
    optimizer = DistributedOptimizer(
        base,
        names,
        compression=config.compression,
        ternary=ternary,
        exchange="auto" if config.exchange == "allreduce" else config.exchange,
    )
    return optimizer, wire_bytes(optimizer, parameters, config.compression, hvd.size())

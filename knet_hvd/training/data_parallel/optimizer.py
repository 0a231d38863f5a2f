"""The distributed optimizer of a data-parallel job."""

from dataclasses import replace

import torch
from torch import nn

from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor
from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer
from knet_hvd.data_parallel.optimizer.distributed import DistributedOptimizer
from knet_hvd.data_parallel.optimizer.horovod import wrap_horovod
from knet_hvd.training.data_parallel.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> AveragingOptimizer:
    """Make the optimizer that a training job asks for, of all parameters of the model."""
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
        return wrap_horovod(base, names, TernaryCompressor(names, ternary=ternary))
    optimizer: AveragingOptimizer = DistributedOptimizer(
        base,
        names,
        compression=config.compression,
        ternary=ternary,
        exchange="auto" if config.exchange == "allreduce" else config.exchange,
    )
    return optimizer

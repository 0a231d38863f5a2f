"""The distributed optimizer of a data-parallel job."""

from dataclasses import replace

from torch import nn

from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor
from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer
from knet_hvd.data_parallel.optimizer.distributed import DistributedOptimizer
from knet_hvd.data_parallel.optimizer.horovod import wrap_horovod
from knet_hvd.pipeline.optimizers import named_optimizer
from knet_hvd.training.data_parallel.config import TrainingConfig


def make_optimizer(model: nn.Module, config: TrainingConfig) -> AveragingOptimizer:
    """Make the optimizer that a training job asks for, of all parameters of the model."""
    base = named_optimizer(
        config.optimizer,
        list(model.parameters()),
        config.learning_rate,
        config.weight_decay,
        fused=None,  # docs/results.md is of this rounding, and so are saved runs
    )
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

"""What the tests of path B share: parameters and how to wrap their optimizer."""

from typing import Any

import horovod.torch as hvd
import torch

from knet_hvd import Compression, TernaryConfig
from tests.parallel.helpers import Parameters
from tests.parallel.optimizers import finish_step

SHAPES = [(30, 40), (900,), (7,), (64, 20), ()]
CONFIG = TernaryConfig(min_values=1, seed=3)


def make(
    parameters: Parameters,
    config: TernaryConfig = CONFIG,
    op: Any = hvd.Average,
    lr: float = 0.1,
    **arguments: Any,
) -> tuple[Any, Any]:
    compressor = Compression.ternary(parameters.items(), ternary=config, op=op)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(parameters.values(), lr=lr),
        parameters.items(),
        compression=compressor,
        op=op,
        **arguments,
    )
    return optimizer, compressor


def give(parameter: torch.Tensor, gradient: torch.Tensor) -> None:
    (parameter * gradient).sum().backward()


def synchronized(optimizer: Any, parameter: torch.Tensor) -> torch.Tensor:
    """Average the gradients, end the step and return the parameter's gradient."""
    optimizer.synchronize()
    assert parameter.grad is not None
    result = parameter.grad.clone()
    finish_step(optimizer)
    return result

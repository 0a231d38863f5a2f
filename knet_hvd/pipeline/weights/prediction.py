"""Weight prediction: run forward on the weights that a late gradient will meet.

Guan et al., "PipeOptim: Ensuring Effective 1F1B Schedule with Optimizer-Dependent
Weight Prediction" (arXiv 2312.00839), after SpecTrain (Chen, Yang and Cheng, 2018) and
XPipe (Guan et al., 2019): a gradient that comes back s updates later is one of the
weights as they were. So a batch goes forward on what the weights will be by then, if
the s updates are like the one that the optimizer's averages say is next.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.optimizers import Optimizer


@torch.no_grad()
def predict_weights(
    targets: Sequence[Tensor], module: nn.Module, optimizer: Optimizer | None, updates: int
) -> None:
    """Write what a module's parameters will be after some more updates.

    Those that the optimizer has not updated yet are copied as they are.

    Args:
        targets: fp32, the module's parameters' shapes and order; are overwritten.
        module: Whose parameters to predict.
        optimizer: Updates them: Adam, or SGD with momentum.
        updates: How many updates ahead.
    """
    for target, parameter in zip(targets, module.parameters(), strict=True):
        state = {} if optimizer is None else optimizer.state.get(parameter, {})
        if optimizer is None or not state or updates == 0:
            target.copy_(parameter)
            continue
        (group,) = optimizer.param_groups
        if "exp_avg" in state:
            _predict_adam(target, parameter, state, group, updates)
        else:
            average, length = state["momentum_buffer"], updates * group["lr"]
            torch.add(parameter, average, alpha=-length, out=target)


def _predict_adam(
    target: Tensor, parameter: Tensor, state: dict[str, Any], group: dict[str, Any], updates: int
) -> None:
    step = float(state["step"])
    first, second = (1 - beta**step for beta in group["betas"])
    root = math.sqrt(second)
    # The corrections of the averages are factors here: a pass less over the weights.
    torch.sqrt(state["exp_avg_sq"], out=target).add_(root * group["eps"])
    length = updates * group["lr"] * root / first
    torch.addcdiv(parameter, state["exp_avg"], target, value=-length, out=target)


@contextmanager
def running_on(weights: Sequence[Tensor], module: nn.Module) -> Iterator[None]:
    """Have a module run on other weights; afterwards its own are back.

    Args:
        weights: Of the module's parameters' shapes and dtypes, in their order.
        module: What runs inside.
    """
    parameters = list(module.parameters())
    own = [parameter.data for parameter in parameters]
    _set(parameters, weights)
    try:
        yield
    finally:
        _set(parameters, own)


def _set(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data = value

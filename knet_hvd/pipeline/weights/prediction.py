"""Weight prediction: run forward on the weights that a late gradient will meet.

Guan et al., "PipeOptim: Ensuring Effective 1F1B Schedule with Optimizer-Dependent
Weight Prediction" (arXiv 2312.00839), after SpecTrain (Chen, Yang and Cheng, 2018) and
XPipe (Guan et al., 2019): a gradient that comes back s updates later is one of the
weights as they were. So a batch goes forward on what the weights will be by then, if
the s updates are like the one that the optimizer's averages say is next.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.optimizers import Optimizer
from knet_hvd.pipeline.weights.muon import muon_update


@torch.no_grad()
def predict_weights(
    targets: Sequence[Tensor], module: nn.Module, optimizer: Optimizer | None, updates: int
) -> None:
    """Write what a module's parameters will be after some more updates.

    Those that the optimizer has not updated yet are copied as they are.

    Args:
        targets: fp32, the module's parameters' shapes and order; are overwritten.
        module: Whose parameters to predict.
        optimizer: Updates them; see ``has_averages``.
        updates: How many updates ahead.
    """
    groups: dict[Tensor, dict[str, Any]] = {}
    states: Mapping[Any, Any] = {}
    if optimizer is not None and updates > 0:
        groups = {p: group for group in optimizer.param_groups for p in group["params"]}
        states = optimizer.state
    for target, parameter in zip(targets, module.parameters(), strict=True):
        state = states.get(parameter, {})
        if state:
            _predict(target, parameter, state, groups[parameter], updates)
        else:
            target.copy_(parameter)


def _predict(
    target: Tensor, parameter: Tensor, state: dict[str, Any], group: dict[str, Any], updates: int
) -> None:
    """Write what one parameter will be, by the optimizer's kind of average."""
    rate, decay = float(group["lr"]), 0.0
    if "ns_steps" in group or group.get("decoupled_weight_decay"):
        decay = rate * group["weight_decay"]
    # Updates of the same length, each after the weights have shrunk by the decay.
    shrunk = (1 - decay) ** updates
    length = rate * ((1 - shrunk) / decay if decay else updates)
    if "betas" in group:
        _predict_adam(target, parameter, state, group, length)
    elif "ns_steps" in group:
        direction, factor = muon_update(state["momentum_buffer"], group)
        torch.add(parameter, direction, alpha=-length * factor, out=target)
    else:
        torch.add(parameter, state["momentum_buffer"], alpha=-length, out=target)
    if decay:
        target.add_(parameter, alpha=shrunk - 1)


def _predict_adam(
    target: Tensor, parameter: Tensor, state: dict[str, Any], group: dict[str, Any], length: float
) -> None:
    step = float(state["step"])
    first, second = (1 - beta**step for beta in group["betas"])
    root = math.sqrt(second)
    squares = state["max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"]
    # The corrections of the averages are factors here: a pass less over the weights.
    torch.sqrt(squares, out=target).add_(root * group["eps"])
    torch.addcdiv(parameter, state["exp_avg"], target, value=-length * root / first, out=target)


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

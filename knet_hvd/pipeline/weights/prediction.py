"""Weight prediction: run forward on the weights that a late gradient will meet.

Guan et al., "PipeOptim: Ensuring Effective 1F1B Schedule with Optimizer-Dependent
Weight Prediction" (arXiv 2312.00839), after SpecTrain (Chen, Yang and Cheng, 2018) and
XPipe (Guan et al., 2019): a gradient that comes back s updates later is one of the
weights as they were. So a batch goes forward on what the weights will be by then, if
the s updates are like the one that the optimizer's averages say is next.

Ours: with microbatches, some gradients of the update under way have come back before a
step's batch goes forward. They are known, so they count beside the averages.
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
    targets: Sequence[Tensor],
    module: nn.Module,
    optimizer: Optimizer | None,
    updates: int,
    arrived_share: float = 0.0,
) -> None:
    """Write what a module's parameters will be after some more updates.

    Those that the optimizer has not updated yet are copied as they are.

    Args:
        targets: fp32, the module's parameters' shapes and order; are overwritten.
        module: Whose parameters to predict.
        optimizer: Updates them; see ``has_averages``.
        updates: How many updates ahead.
        arrived_share: Share of the next update's microbatches whose gradients the parameters
            hold already, 0 to 1. Those count, and the average stands for the others only.
    """
    groups: dict[Tensor, dict[str, Any]] = {}
    states: Mapping[Any, Any] = {}
    if optimizer is not None and updates > 0:
        groups = {p: group for group in optimizer.param_groups for p in group["params"]}
        states = optimizer.state
    for target, parameter in zip(targets, module.parameters(), strict=True):
        state = states.get(parameter, {})
        if state:
            _predict(target, parameter, state, groups[parameter], updates, arrived_share)
        else:
            target.copy_(parameter)


def _predict(
    target: Tensor,
    parameter: Tensor,
    state: dict[str, Any],
    group: dict[str, Any],
    updates: int,
    share: float,
) -> None:
    """Write what one parameter will be, by the optimizer's kind of average."""
    rate, decay = float(group["lr"]), 0.0
    if "ns_steps" in group or group.get("decoupled_weight_decay"):
        decay = rate * group["weight_decay"]
    # Updates of the same length, each after the weights have shrunk by the decay.
    shrunk = (1 - decay) ** updates
    length = rate * ((1 - shrunk) / decay if decay else updates)
    arrived = parameter.grad if share > 0 else None
    if "betas" in group:
        average, squares, step = _adam_averages(state, group, arrived, share)
        first, second = (1 - beta**step for beta in group["betas"])
        root = math.sqrt(second)
        # The corrections of the averages are factors here: a pass less over the weights.
        torch.sqrt(squares, out=target).add_(root * group["eps"])
        torch.addcdiv(parameter, average, target, value=-length * root / first, out=target)
    else:
        kind = _muon_direction if "ns_steps" in group else _sgd_direction
        direction, factor = kind(state["momentum_buffer"], group, arrived, share)
        torch.add(parameter, direction, alpha=-length * factor, out=target)
    if decay:
        target.add_(parameter, alpha=shrunk - 1)


def _adam_averages(
    state: dict[str, Any], group: dict[str, Any], arrived: Tensor | None, share: float
) -> tuple[Tensor, Tensor, float]:
    """Return the averages of gradients and of their squares that give the next update.

    What has arrived counts in both: where an average of squares is still 0, a gradient that
    counted in the first alone would be divided by nothing.

    Returns:
        Both, not corrected, and the number of updates that they are averages over.
    """
    average, squares, step = state["exp_avg"], state["exp_avg_sq"], float(state["step"])
    largest = state["max_exp_avg_sq"] if group["amsgrad"] else None
    if arrived is None:
        return average, squares if largest is None else largest, step
    first, second = group["betas"]
    gradient = torch.add(arrived, average, alpha=(1 - share) / (1 - first**step))
    squares = squares.mul(second).addcmul_(gradient, gradient, value=1 - second)
    squares = squares if largest is None else torch.maximum(largest, squares)
    return average.lerp(gradient, 1 - first), squares, step + 1


def _muon_direction(
    average: Tensor, group: dict[str, Any], arrived: Tensor | None, share: float
) -> tuple[Tensor, float]:
    kept = group["momentum"] ** 2 if group["nesterov"] else group["momentum"]
    return muon_update(_with_arrived(average, arrived, share, kept, 1 - kept), group)


def _sgd_direction(
    sums: Tensor, group: dict[str, Any], arrived: Tensor | None, share: float
) -> tuple[Tensor, float]:
    return _with_arrived(sums, arrived, share, group["momentum"], 1 - group["dampening"]), 1.0


def _with_arrived(
    average: Tensor, arrived: Tensor | None, share: float, kept: float, weight: float
) -> Tensor:
    """Return what an average will be once a gradient has come of which a share is there.

    The rest of it is taken to be such that it leaves the average as it is.

    Args:
        average: Of the gradients.
        arrived: The sum of what has come; None leaves the average as it is.
        share: How much of the gradient that is.
        kept: What the next average keeps of this one.
        weight: Of the new gradient in the next average.
    """
    if arrived is None:
        return average
    return torch.add(average * (kept + (1 - kept) * (1 - share)), arrived, alpha=weight)


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

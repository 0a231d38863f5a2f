"""The parameters of an optimizer: named, numbered, grouped."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from knet_hvd.argument_checks import check_integer, shown
from knet_hvd.data_parallel.arguments import check_floating_point, named_pairs
from knet_hvd.data_parallel.buckets.plan import NamedParameter


def named_parameters_of(
    optimizer: torch.optim.Optimizer, named_parameters: Iterable[tuple[str, Tensor]] | None
) -> list[NamedParameter]:
    """Return the trainable parameters of an optimizer in the model's order.

    Args:
        optimizer: Its parameters must all be named.
        named_parameters: Usually ``model.named_parameters()``; None numbers them.

    Raises:
        TypeError: If ``named_parameters`` holds anything but names and tensors.
        ValueError: If a name appears twice, a parameter has none, or one is not of a
            floating-point dtype.
    """
    own = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if named_parameters is None:
        named_parameters = [(f"parameter.{i}", tensor) for i, tensor in enumerate(own)]
    names: dict[Tensor, str] = {}
    for name, tensor in named_pairs(named_parameters):
        names.setdefault(tensor, name)
    nameless = [tuple(tensor.shape) for tensor in own if tensor not in names]
    if nameless:
        raise ValueError(
            f"named_parameters: {len(nameless)} of the optimizer's parameters have no "
            f"name, the first of shape {nameless[0]}; pass model.named_parameters()"
        )
    known = set(own)
    trained = [(name, t) for t, name in names.items() if t in known and t.requires_grad]
    for name, tensor in trained:
        check_floating_point(name, tensor)
    return [NamedParameter(name, tensor, i) for i, (name, tensor) in enumerate(trained)]


def group_names(
    parameters: list[NamedParameter],
    num_groups: int,
    groups: Any = None,
) -> list[frozenset[str]]:
    """Return Horovod's two arguments for groups as sets of names.

    Args:
        parameters: In the model's order.
        num_groups: The older argument, which counts if ``groups`` is None.
        groups: A number of groups of about equal length, or lists of parameters.

    Raises:
        TypeError: If they are anything else.
        ValueError: If a number is negative or a parameter is in two groups.
    """
    check_integer("num_groups", num_groups, least=0)
    if groups is None:
        return _equal_groups(parameters, num_groups)
    if not isinstance(groups, (list, tuple)):
        check_integer("groups", groups, least=0)
        return _equal_groups(parameters, groups)
    names = {p.tensor: p.name for p in parameters}
    for group in groups:
        for tensor in group if isinstance(group, (list, tuple)) else [group]:
            if not isinstance(tensor, Tensor) or isinstance(group, Tensor):
                raise TypeError(
                    f"groups: expected a number or lists of parameters, got {shown(tensor)} in it; "
                    "write groups=[list(model.conv.parameters()), list(model.fc.parameters())]"
                )
    members = [[names[t] for t in group if t in names] for group in groups]
    flat = [name for group in members for name in group]
    if len(flat) != len(set(flat)):
        raise ValueError("groups: a parameter appears in more than one group")
    return [frozenset(group) for group in members]


def _equal_groups(parameters: list[NamedParameter], num_groups: int) -> list[frozenset[str]]:
    size = -(-len(parameters) // num_groups) if num_groups else 0
    starts = range(0, len(parameters), size) if num_groups and parameters else range(0)
    return [frozenset(p.name for p in parameters[i : i + size]) for i in starts]

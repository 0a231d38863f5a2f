"""The parameters of an optimizer: named, numbered, grouped."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from knet_hvd.data_parallel.buckets.plan import NamedParameter


def named_parameters_of(
    optimizer: torch.optim.Optimizer, named_parameters: Iterable[tuple[str, Tensor]] | None
) -> list[NamedParameter]:
    """Return the trainable parameters of an optimizer in the model's order.

    Args:
        optimizer: Its parameters must all be named.
        named_parameters: Usually ``model.named_parameters()``; None numbers them.

    Raises:
        ValueError: If a name appears twice, a parameter has none, or one is not of a
            floating-point dtype.
    """
    own = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    if named_parameters is None:
        named_parameters = [(f"parameter.{i}", tensor) for i, tensor in enumerate(own)]
    names: dict[Tensor, str] = {}
    for name, tensor in named_parameters:
        if name in names.values():
            raise ValueError(f"named_parameters: the name {name!r} appears twice")
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
        if not tensor.is_floating_point():
            raise ValueError(f"{name}: expected a floating-point parameter, got {tensor.dtype}")
    return [NamedParameter(name, tensor, i) for i, (name, tensor) in enumerate(trained)]


def group_names(
    parameters: list[NamedParameter], groups: int | Sequence[Sequence[Tensor]]
) -> list[frozenset[str]]:
    """Return Horovod's ``groups`` argument as sets of names.

    Args:
        parameters: In the model's order.
        groups: A number of groups of about equal length, or lists of parameters.

    Raises:
        ValueError: If the number is negative or a parameter is in two groups.
    """
    if isinstance(groups, int):
        if groups < 0:
            raise ValueError(f"groups: expected at least 0, got {groups}")
        size = -(-len(parameters) // groups) if groups else 0
        starts = range(0, len(parameters), size) if groups and parameters else range(0)
        return [frozenset(p.name for p in parameters[i : i + size]) for i in starts]
    names = {p.tensor: p.name for p in parameters}
    members = [[names[t] for t in group if t in names] for group in groups]
    flat = [name for group in members for name in group]
    if len(flat) != len(set(flat)):
        raise ValueError("groups: a parameter appears in more than one group")
    return [frozenset(group) for group in members]

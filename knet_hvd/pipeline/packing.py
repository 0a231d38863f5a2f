"""Tensors as trees for a checkpoint, with their layout in memory.

Convolutions choose their order of summation by the layout, and the run that continues
has to find the same.
"""

import torch
from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import Activation


def pack_tensor(tensor: Tensor | None) -> StateTree:
    """Return a tensor's values and layout; None remains None."""
    if tensor is None:
        return None
    return {"values": tensor.detach(), "strides": list(tensor.stride())}


def unpack_tensor(tree: StateTree, device: torch.device) -> Tensor:
    """Return the tensor of `pack_tensor` on a device, in memory of its own."""
    values: Tensor = tree["values"]
    tensor = torch.empty_strided(values.shape, tree["strides"], dtype=values.dtype, device=device)
    return tensor.copy_(values)


def unpack_optional(tree: StateTree, device: torch.device) -> Tensor | None:
    """Return the tensor of `pack_tensor`, or None where it got None."""
    return None if tree is None else unpack_tensor(tree, device)


def pack_activation(activation: Activation | None) -> StateTree:
    """Return what `pack_tensor` returns, of each tensor of a tuple."""
    if isinstance(activation, tuple):
        return [pack_tensor(each) for each in activation]
    return pack_tensor(activation)


def unpack_activation(tree: StateTree, device: torch.device) -> Activation:
    """Return the activation of `pack_activation` on a device, in memory of its own."""
    if isinstance(tree, list):
        return tuple(unpack_tensor(each, device) for each in tree)
    return unpack_tensor(tree, device)

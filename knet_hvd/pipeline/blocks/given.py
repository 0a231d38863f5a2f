"""Blocks of a network that exists already, with its values."""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from knet_hvd.models.blocks import blocks_of


class GivenBlocks:
    """Hand out the blocks of a network that the caller has built.

    A stage trains the caller's own modules, not copies of them.

    Attributes:
        network: The caller's.
        skeleton: The same on the meta device.
    """

    def __init__(self, network: nn.Sequential) -> None:
        """Take the network; its children are the blocks."""
        self.network = network
        self.skeleton = on_meta(network)
        self._blocks = blocks_of(network)

    @property
    def names(self) -> list[str]:
        """Return the names of the blocks."""
        return [name for name, _ in self._blocks]

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self._blocks)

    def build(self, own: Sequence[int]) -> nn.Sequential:
        """Return the caller's own blocks.

        Args:
            own: Their numbers, in order.
        """
        return nn.Sequential(OrderedDict(self._blocks[index] for index in own))

    def each(self) -> Iterator[nn.Module]:
        """Yield a copy of every block: measuring moves batch statistics."""
        for _, block in self._blocks:
            yield copy.deepcopy(block)


def on_meta(network: nn.Sequential) -> nn.Sequential:
    """Return a copy of a network whose parameters and buffers have no memory.

    Parameters that two blocks share are shared in the copy too.
    """
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        shape_only = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(shape_only, requires_grad=parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(network, memo)


def state_tensors(network: nn.Module) -> list[Tensor]:
    """Return all parameters and buffers, each once, in an order that every rank has."""
    return [*network.parameters(), *network.buffers()]

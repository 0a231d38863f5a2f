"""Build some blocks of a network without the memory of the others.

A rank keeps only the blocks of its stage, with the weights that they have in the whole
network. The network is first built on the meta device, which knows shapes only, and
what gives its parameters and buffers their values is written down: see ``construction``.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from knet_hvd.models.blocks import blocks_of
from knet_hvd.pipeline.blocks.construction import Construction, Values


class BlockBuilder:
    """Build blocks of a network, all or a few.

    Attributes:
        skeleton: The whole network on the meta device.
    """

    def __init__(self, factory: Callable[[], nn.Sequential]) -> None:
        """Record what a function does to the network that it builds; draw no random number.

        Args:
            factory: Returns the whole network, whose children are the blocks. It is called
                on the meta device, where tensors have no values: it may make and set
                tensors and run blocks to learn shapes, but not look at values.

        Raises:
            ValueError: If initial values cannot be repeated, or the factory's own errors.
        """
        self._construction = Construction()
        with self._construction:
            self.skeleton = factory()
        self._children = blocks_of(self.skeleton)
        if not self._construction.is_repeatable:
            raise ValueError(
                "an initial value was set by a function that leaves tensors of the meta device "
                "as they are, such as torch.nn.init.trunc_normal_ or orthogonal_"
            )
        missing = [
            f"{key} of block {name}"
            for name, block in self._children
            for key, tensor in _named_tensors(block)
            if not self._construction.sets(tensor)
        ]
        if missing:
            raise ValueError(f"no initial value was recorded for {', '.join(missing)}")

    @property
    def names(self) -> list[str]:
        """Return the names of the blocks."""
        return [name for name, _ in self._children]

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self._children)

    def build(self, own: Sequence[int]) -> nn.Sequential:
        """Return blocks as they are in the whole network.

        `torch.manual_seed` and this give the values of `torch.manual_seed` and the
        factory, bit for bit, and leave the generator in the same state.

        Args:
            own: The numbers of the blocks, in order.
        """
        chosen = [self._children[index] for index in own]
        wanted = [tensor for _, block in chosen for _, tensor in _named_tensors(block)]
        values = self._construction.repeat(wanted, draw_others=True)
        return nn.Sequential(OrderedDict((n, _with_values(b, values)) for n, b in chosen))

    def each(self) -> Iterator[nn.Module]:
        """Yield every block with random weights, but not those of the whole network.

        For measuring: a block can be let go before the next one gets memory.
        """
        for _, block in self._children:
            wanted = [tensor for _, tensor in _named_tensors(block)]
            values = self._construction.repeat(wanted, draw_others=False)
            yield _with_values(block, values)


def _named_tensors(block: nn.Module) -> list[tuple[str, Tensor]]:
    """Return parameters and buffers, also those that a state dictionary leaves out."""
    return [*block.named_parameters(), *block.named_buffers()]


@torch.no_grad()
def _with_values(block: nn.Module, values: Values) -> nn.Module:
    """Return a copy of a block of the meta device, with memory and values."""
    # A copy, so that the skeleton keeps none of the memory.
    memo = {}
    for _, tensor in _named_tensors(block):
        value = values.of(tensor)
        if isinstance(tensor, nn.Parameter):
            value = nn.Parameter(value, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = value
    return copy.deepcopy(block, memo)

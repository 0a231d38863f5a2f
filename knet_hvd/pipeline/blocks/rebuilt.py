"""Blocks of a network whose initial values cannot be made for a few blocks alone."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from knet_hvd.pipeline.blocks.given import GivenBlocks


class RebuiltBlocks:
    """Build the whole network whenever blocks are wanted, and let go of the others.

    Each rank needs memory for all of it for that time, so ``BlockBuilder`` comes first.

    Attributes:
        skeleton: The whole network on the meta device.
    """

    def __init__(self, factory: Callable[[], nn.Sequential]) -> None:
        """Take a function that returns the whole network; its children are the blocks."""
        self._factory = factory
        with torch.random.fork_rng(devices=[]):
            given = GivenBlocks(factory())
        self.skeleton, self.names = given.skeleton, given.names

    def __len__(self) -> int:
        """Return the number of blocks."""
        return len(self.names)

    def build(self, own: Sequence[int]) -> nn.Sequential:
        """Return blocks of a new network, which draws what one process would draw.

        Args:
            own: The numbers of the blocks, in order.
        """
        return GivenBlocks(self._factory()).build(own)

    def each(self) -> Iterator[nn.Module]:
        """Yield every block of a new network."""
        with torch.random.fork_rng(devices=[]):
            network = self._factory()
        yield from GivenBlocks(network).build(range(len(self)))

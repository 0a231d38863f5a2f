"""Where the blocks of a network come from."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from torch import nn


class BlockSource(Protocol):
    """Hand out the blocks of a network, all or those of a stage.

    Attributes:
        skeleton: The whole network on the meta device.
        names: Of the blocks.
    """

    @property
    def skeleton(self) -> nn.Sequential:
        """Return the whole network on the meta device, where tensors have no memory."""

    @property
    def names(self) -> list[str]:
        """Return the names of the blocks."""

    def __len__(self) -> int:
        """Return the number of blocks."""

    def build(self, own: Sequence[int]) -> nn.Sequential:
        """Return blocks with the values that they have in the whole network.

        Args:
            own: The numbers of the blocks, in order.
        """

    def each(self) -> Iterator[nn.Module]:
        """Yield every block once, for measuring; nothing of it is kept."""

"""Build some blocks of a network without the memory of the others.

A rank keeps only the blocks of its stage, with the weights that they have in the whole
network. The network is first built on the meta device, which knows shapes only, and
what its functions do to parameters and buffers is written down. Blocks then get memory,
and the same operations are run on them: each draws the same random numbers, as long as
those of the other blocks are drawn too, which needs one of their tensors at a time.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from knet_hvd.models.blocks import truncated_normal_

_Operation = tuple[Any, Tensor, tuple[Any, ...], dict[str, Any]]
"""What was called, the tensor that it changed, and the other arguments."""


class BlockBuilder:
    """Build blocks of a network, all or a few.

    Attributes:
        skeleton: The whole network on the meta device.
    """

    def __init__(self, factory: Callable[[], nn.Sequential]) -> None:
        """Record what a function does to the network that it builds; draw no random number.

        Args:
            factory: Returns the whole network, whose children are the blocks. It is called
                on the meta device, where tensors have no values: it may set initial values
                in place and run blocks to learn shapes, but not look at values.

        Raises:
            ValueError: If initial values cannot be repeated, or the factory's own errors.
        """
        operations: list[_Operation] = []
        with torch.device("meta"), _Redraws(operations), _Changes(operations):
            self.skeleton = factory()
        self._children = list(self.skeleton.named_children())
        owners = {
            id(tensor): (index, key)
            for index, (_, block) in enumerate(self._children)
            for key, tensor in block.state_dict(keep_vars=True).items()
        }
        # Blocks' tensors only: trial runs for shapes make others.
        self._operations = [
            (*owners[id(operation[1])], operation)
            for operation in operations
            if id(operation[1]) in owners
        ]
        written = {(index, key) for index, key, _ in self._operations}
        missing = sorted(set(owners.values()) - written)
        if missing:
            names = ", ".join(f"{key} of block {self.names[index]}" for index, key in missing)
            raise ValueError(
                f"no initial value was recorded for {names}: set them in place, as with "
                "torch.nn.init"
            )

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
        blocks = {index: self._allocate(index) for index in own}
        self._run(blocks, draw_others=True)
        names = [self._children[index][0] for index in own]
        return nn.Sequential(OrderedDict(zip(names, blocks.values(), strict=True)))

    def each(self) -> Iterator[nn.Module]:
        """Yield every block with random weights, but not those of the whole network.

        For measuring: a block can be let go before the next one gets memory.
        """
        for index in range(len(self._children)):
            block = self._allocate(index)
            self._run({index: block}, draw_others=False)
            yield block

    def _allocate(self, index: int) -> nn.Module:
        # A block of its own, so that the skeleton keeps none of the memory.
        return copy.deepcopy(self._children[index][1]).to_empty(device="cpu")

    @torch.no_grad()
    def _run(self, blocks: dict[int, nn.Module], draw_others: bool) -> None:
        """Repeat what was recorded, on the blocks that have memory."""
        tensors = {index: b.state_dict(keep_vars=True) for index, b in blocks.items()}
        for index, key, (function, meta, args, kwargs) in self._operations:
            if index in tensors:
                function(tensors[index][key], *args, **kwargs)
            elif draw_others and _is_random(function):
                function(torch.empty_like(meta, device="cpu"), *args, **kwargs)


class _Changes(TorchDispatchMode):
    """Write down every operation that changes a tensor in place."""

    def __init__(self, operations: list[_Operation]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._operations = operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func._schema.is_mutable and args and isinstance(args[0], Tensor):
            self._operations.append((func, args[0], tuple(args[1:]), dict(kwargs)))
        return func(*args, **kwargs)


class _Redraws(TorchFunctionMode):
    """Write down `truncated_normal_`, which looks at values before it draws more."""

    def __init__(self, operations: list[_Operation]) -> None:
        super().__init__()
        self._operations = operations

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is truncated_normal_:
            self._operations.append((func, args[0], tuple(args[1:]), {}))
            return args[0]
        return func(*args, **(kwargs or {}))


def _is_random(function: Any) -> bool:
    if function is truncated_normal_:
        return True
    return torch.Tag.nondeterministic_seeded in function.tags

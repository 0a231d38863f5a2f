"""Weight stashing: graphs that outlive an update of the weights they were made with.

After Narayanan et al., "PipeDream" (SOSP 2019), section 3.3: a batch goes backward
through the weights that it went forward with. Optimizers change weights in place, so
the graph of a batch is made to refer to a copy of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Stash:
    """What made a batch's output, besides its inputs.

    Attributes:
        weights: Copies of the module's parameters, in their order and layout.
        random_state: Of the CPU's generator, before dropout took from it.
    """

    weights: list[Tensor]
    random_state: Tensor


class StashPool:
    """Make stashes; memory that was given back is used again.

    New memory for each batch would cost more than the copy: the system has to clear it.
    """

    def __init__(self) -> None:
        """Begin without memory."""
        self._free: list[list[Tensor]] = []

    @torch.no_grad()
    def take(self, module: nn.Module) -> Stash:
        """Return a stash of the module as it is now.

        Args:
            module: The same one in every call.
        """
        parameters = list(module.parameters())
        if not self._free:
            self._free.append([torch.empty_like(each) for each in parameters])
        weights = self._free.pop()
        for copy, parameter in zip(weights, parameters, strict=True):
            copy.copy_(parameter)
        return Stash(weights, torch.get_rng_state())

    def give_back(self, stash: Stash) -> None:
        """Let the memory be used again; no graph may need it any more."""
        self._free.append(stash.weights)


@contextmanager
def graph_on(stash: Stash, module: nn.Module) -> Iterator[None]:
    """Have graphs that are made inside refer to the stash, not to the parameters.

    Gradients still arrive at the parameters.

    Args:
        stash: Equal to the module's parameters.
        module: What runs forward inside.
    """
    copies = {
        parameter.untyped_storage().data_ptr(): (parameter.storage_offset(), copy)
        for parameter, copy in zip(module.parameters(), stash.weights, strict=True)
    }

    def pack(tensor: Tensor) -> Tensor:
        found = copies.get(tensor.untyped_storage().data_ptr())
        if found is None:
            return tensor
        first, copy = found
        offset = tensor.storage_offset() - first  # a weight is often saved transposed
        return copy.as_strided(tensor.size(), tensor.stride(), offset)

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield


@contextmanager
def as_it_was(stash: Stash, module: nn.Module) -> Iterator[None]:
    """Bring a module to what a stash holds, and afterwards to what it was before.

    Args:
        stash: Of this module.
        module: Its parameters; its buffers and the generator are restored as well.
    """
    tensors = [*module.parameters(), *module.buffers()]
    before = [tensor.detach().clone() for tensor in tensors]
    random_state = torch.get_rng_state()
    torch.set_rng_state(stash.random_state)
    _copy(stash.weights, tensors[: len(stash.weights)])
    try:
        yield
    finally:
        _copy(before, tensors)
        torch.set_rng_state(random_state)


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)

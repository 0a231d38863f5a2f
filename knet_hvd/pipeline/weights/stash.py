"""Weight stashing: graphs that outlive an update of the weights they were made with.

After Narayanan et al., "PipeDream" (SOSP 2019), section 3.3: a batch goes backward
through the weights that it went forward with. Optimizers change weights in place, so
a batch goes forward on a copy of them, which its graph refers to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from knet_hvd.devices.random_state import load_random_states, own_random_states
from knet_hvd.pipeline.weights.prediction import running_on


@dataclass(frozen=True, slots=True, eq=False)
class Stash:
    """What made a batch's output, besides its inputs.

    Attributes:
        weights: Copies of the module's parameters, in their order and layout.
        random_state: Of PyTorch's generators, before dropout took from them; see
            `save_random_states`.
    """

    weights: list[Tensor]
    random_state: dict[str, Any]


class StashPool:
    """Give memory for copies of weights; what was given back is used again.

    New memory for each step would cost more than the copy: the system has to clear it.
    """

    def __init__(self) -> None:
        """Begin without memory."""
        self._free: list[list[Tensor]] = []

    def take(self, module: nn.Module) -> list[Tensor]:
        """Return memory for a copy of the module's weights.

        Args:
            module: The same one in every call.
        """
        if not self._free:
            parameters = module.parameters()
            self._free.append([torch.empty_like(each.detach()) for each in parameters])
        return self._free.pop()

    def give_back(self, weights: list[Tensor]) -> None:
        """Let the memory be used again; no graph may need it any more."""
        self._free.append(weights)


@contextmanager
def graph_on(stash: Stash, module: nn.Module) -> Iterator[None]:
    """Have a module run on a stash, with graphs that refer to it.

    Gradients still arrive at the parameters.

    Args:
        stash: Made of the module.
        module: What runs forward inside.
    """

    def pack(tensor: Tensor) -> Tensor:
        # A parameter itself, or its transpose, would later be what it is by then. And
        # an output that its own node keeps would never be freed, nor the graph with it.
        return tensor.detach()

    saved = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with running_on(stash.weights, module), saved:
        yield


@contextmanager
def as_it_was(stash: Stash, module: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a module draw the random numbers that it drew, and keep its buffers.

    Args:
        stash: Of this module.
        module: What runs inside; its buffers and the generators are restored.
        device: Of the module.
    """
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    try:
        with own_random_states(device):
            load_random_states(device, stash.random_state)
            yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)

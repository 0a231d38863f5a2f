"""Activations: what one block hands to the next, a tensor or a tuple of tensors.

Gradients come back for one tensor of floating point, and for those tensors of a tuple that
depend on parameters: an attention mask, which does not, has none.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TypeAlias

import torch
from torch import Tensor

from knet_hvd.comm import Encoding
from knet_hvd.comm.links.encodings import max_payload_bytes
from knet_hvd.devices.moving import moved

Activation: TypeAlias = Tensor | tuple[Tensor, ...]


def tensors_of(activation: Activation) -> tuple[Tensor, ...]:
    """Return the tensors of an activation."""
    return (activation,) if isinstance(activation, Tensor) else activation


def learnable(activation: Activation) -> tuple[Tensor, ...]:
    """Return the tensors of an activation that have gradients."""
    if isinstance(activation, Tensor):
        return (activation,) if activation.is_floating_point() else ()
    return tuple(each for each in activation if each.requires_grad)


def map_tensors(function: Callable[[Tensor], Tensor], activation: Activation) -> Activation:
    """Return an activation with a function of each tensor."""
    if isinstance(activation, Tensor):
        return function(activation)
    return tuple(function(each) for each in activation)


def on_device(activation: Activation, device: torch.device) -> Activation:
    """Return an activation on a device; see ``moved``."""
    return map_tensors(lambda each: moved(each, device), activation)


def num_samples(activation: Activation) -> int:
    """Return the rows of an activation's first tensor."""
    return len(tensors_of(activation)[0])


def split_rows(activation: Activation, num_parts: int) -> list[Activation]:
    """Return parts of equally many rows, the last ones with fewer; fewer parts of few rows."""
    if isinstance(activation, Tensor):
        return list(activation.chunk(num_parts))
    return list(zip(*(each.chunk(num_parts) for each in activation), strict=True))


def require_gradients(activation: Activation, which: Sequence[bool]) -> None:
    """Have autograd compute the gradients of some of an activation's tensors."""
    for each, has_gradient in zip(tensors_of(activation), which, strict=True):
        if has_gradient:
            each.requires_grad_()


def needs_gradient(activation: Activation) -> bool:
    """Return whether a gradient of the activation will be asked for."""
    return any(each.requires_grad for each in tensors_of(activation))


@torch.no_grad()
def gradient_of(activation: Activation) -> Activation | None:
    """Return the gradients of an activation's tensors; None if none was computed.

    A tensor of a tuple that nothing depends on has a gradient of zeros.
    """
    if isinstance(activation, Tensor):
        return activation.grad
    tensors = learnable(activation)
    if all(each.grad is None for each in tensors):
        return None
    return tuple(torch.zeros_like(t) if t.grad is None else t.grad for t in tensors)


def only_tensor(activation: Activation) -> Tensor:
    """Return the tensor of an activation that is no tuple.

    Raises:
        TypeError: If it is one.
    """
    if not isinstance(activation, Tensor):
        raise TypeError(f"activation: expected one tensor, got {len(activation)}")
    return activation


@dataclass(frozen=True, slots=True)
class Signature:
    """Say what an activation consists of.

    Attributes:
        shapes: Of its tensors.
        dtypes: Of its tensors.
        gradients: Which of its tensors have gradients.
        is_tuple: Whether it is a tuple.
    """

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[torch.dtype, ...]
    gradients: tuple[bool, ...]
    is_tuple: bool

    @classmethod
    def of(cls, activation: object, what: str) -> "Signature":
        """Return the signature of an activation.

        Args:
            activation: What a block returned, with its graph.
            what: Which block, for the message.

        Raises:
            TypeError: If it is no activation.
        """
        tensors: Sequence[object] = activation if isinstance(activation, tuple) else (activation,)
        found = [each for each in tensors if isinstance(each, Tensor) and each.dim() > 0]
        if len(found) != len(tensors) or not found:
            names = ", ".join(type(each).__name__ for each in tensors)
            raise TypeError(
                f"{what}: expected a tensor or a tuple of tensors with the samples as first "
                f"dimension, got {names}: cut elsewhere"
            )
        shapes = tuple(tuple(each.shape) for each in found)
        dtypes = tuple(each.dtype for each in found)
        is_tuple = isinstance(activation, tuple)
        # A tensor alone has one even where nothing before it learns: it costs little.
        gradients = tuple(t.requires_grad if is_tuple else t.is_floating_point() for t in found)
        return cls(shapes, dtypes, gradients, is_tuple)

    @property
    def learnable(self) -> "Signature":
        """Return the signature of the gradients."""
        shapes = tuple(compress(self.shapes, self.gradients))
        dtypes = tuple(compress(self.dtypes, self.gradients))
        return Signature(shapes, dtypes, (True,) * len(shapes), self.is_tuple)

    @property
    def num_values(self) -> int:
        """Return the values of all tensors."""
        return sum(math.prod(shape) for shape in self.shapes)

    def num_bytes(self, encoding: Encoding) -> int:
        """Return the most bytes that the values take where they cross.

        Args:
            encoding: Of what is float32; other values cross as they are.
        """
        return sum(
            max_payload_bytes(math.prod(s), encoding if d == torch.float32 else "raw", d)
            for s, d in zip(self.shapes, self.dtypes, strict=True)
        )

    @property
    def sample_shape(self) -> tuple[int, ...] | None:
        """Return the shape without the samples, if there is one tensor of floating point."""
        if self.is_tuple or not self.dtypes[0].is_floating_point:
            return None
        return self.shapes[0][1:]

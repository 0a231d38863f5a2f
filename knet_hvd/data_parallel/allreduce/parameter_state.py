"""Path B's memory: which parameter a gradient belongs to, and what is kept of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.arguments import check_floating_point, named_pairs
from knet_hvd.errors import KnetError


@dataclass(slots=True)
class ParameterState:
    """What is kept of one parameter between steps.

    Attributes:
        name: The parameter's name.
        parameter: The parameter.
        stream: Its number, which its random numbers are drawn with.
        stays_float: Whether its gradient crosses in floating point.
        scale: The shared scale of the next step; None if it goes in full precision.
        step: Steps sent as codes so far.
    """

    name: str
    parameter: Tensor
    stream: int
    stays_float: bool
    scale: float | None = None
    step: int = 0

    def set_scale(self, mean_magnitude: float | None, clip_factor: float) -> None:
        """Set the next step's scale from the mean over ranks of the magnitudes."""
        self.scale = None
        if mean_magnitude is not None and mean_magnitude > 0:
            rounded = torch.tensor(clip_factor * mean_magnitude, dtype=torch.float32)
            self.scale = float(rounded) or None


class ParameterTable:
    """Find a parameter's state by its gradient: Horovod passes no name."""

    def __init__(
        self, named_parameters: Iterable[tuple[str, Tensor]], config: TernaryConfig
    ) -> None:
        """Number the parameters that require a gradient."""
        self._states = [
            ParameterState(name, tensor, i, config.stays_float(name, tensor.numel()))
            for i, (name, tensor) in enumerate(named_pairs(named_parameters))
            if tensor.requires_grad
        ]
        for state in self._states:
            check_floating_point(state.name, state.parameter)
        self._next = 0

    def __iter__(self) -> Iterator[ParameterState]:
        """Iterate over the states in the model's order."""
        return iter(self._states)

    def find(self, gradient: Tensor) -> ParameterState:
        """Return the state of the parameter whose ``grad`` this tensor is.

        The search starts where the last one ended: gradients come in much the same
        order, the last parameter's first.

        Raises:
            KnetError: If it is no parameter's gradient.
        """
        for offset in range(len(self._states)):
            index = (self._next - offset) % len(self._states)
            if self._states[index].parameter.grad is gradient:
                self._next = (index - 1) % len(self._states)
                return self._states[index]
        sparse = [
            s.name for s in self._states if (g := s.parameter.grad) is not None and g.is_sparse
        ]
        if sparse:
            raise KnetError(
                f"{sparse[0]}: its gradient is sparse, and with sparse_as_dense=True "
                "Compression.ternary gets another tensor. Leave sparse_as_dense out, and its rows "
                "cross as they are; or use knet_hvd.DistributedOptimizer, which takes it"
            )
        raise KnetError(
            "Compression.ternary was given a tensor that is not the gradient of one of "
            "the named parameters. Adasum and parameters that were not named need "
            "knet_hvd.DistributedOptimizer or hvd.Compression.none"
        )

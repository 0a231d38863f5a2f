"""What updates a stage: one optimizer, or several that share its parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn


class Optimizer(Protocol):
    """What updates parameters: PyTorch's optimizers, or one that averages first."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups, whose `lr` may be set."""

    @property
    def state(self) -> Mapping[Any, Any]:
        """Return what it keeps for each parameter."""

    def step(self) -> Any:
        """Update."""

    def zero_grad(self) -> None:
        """Drop the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it keeps between updates."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""


class CombinedOptimizer:
    """Make several optimizers one, such as Muon for matrices and AdamW for the rest.

    Attributes:
        parts: Each updates parameters of its own.
    """

    def __init__(self, parts: Sequence[Optimizer]) -> None:
        """Take the optimizers, at least one."""
        self.parts = tuple(parts)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the groups of all optimizers."""
        return [group for each in self.parts for group in each.param_groups]

    @property
    def state(self) -> Mapping[Any, Any]:
        """Return what they keep for each parameter."""
        return {key: value for each in self.parts for key, value in each.state.items()}

    def step(self) -> None:
        """Update with each."""
        for each in self.parts:
            each.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for each in self.parts:
            each.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return what each keeps between updates."""
        return {"parts": [each.state_dict() for each in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned.

        Raises:
            ValueError: If it is that of another number of optimizers.
        """
        for each, state in zip(self.parts, state_dict["parts"], strict=True):
            each.load_state_dict(state)


def combined(
    optimizers: Sequence[Optimizer], parameters: Sequence[nn.Parameter]
) -> CombinedOptimizer:
    """Return several optimizers as one.

    Args:
        optimizers: At least one.
        parameters: Each has to be in just one of them.

    Raises:
        ValueError: If a parameter is in none, or in two.
    """
    found = [
        id(each) for part in optimizers for group in part.param_groups for each in group["params"]
    ]
    for parameter in parameters:
        number = found.count(id(parameter))
        if number != 1:
            raise ValueError(
                f"optimizer: expected each parameter in one optimizer of the list, got one of "
                f"shape {list(parameter.shape)} in {number}"
            )
    return CombinedOptimizer(optimizers)

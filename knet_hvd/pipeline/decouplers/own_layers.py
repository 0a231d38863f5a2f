"""Local heads and synthesizers of a user's own, as functions of an activation's shape."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from knet_hvd.pipeline.loss_head import Loss

LayersOf: TypeAlias = Callable[[tuple[int, ...]], nn.Module]
"""Returns a module for activations of a shape, without the samples."""


class OwnHead(nn.Module):
    """Judge an activation by the network's loss of what a user's head makes of it."""

    def __init__(self, layers: nn.Module, loss: Loss) -> None:
        """Take the user's module, and the loss of its output and the targets."""
        super().__init__()
        self.layers, self._loss = layers, loss

    def forward(self, activation: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a mean over the samples."""
        return self._loss(self.layers(activation), targets)


class OwnSynthesizer(nn.Module):
    """Predict the gradient of an activation by a user's module."""

    def __init__(self, layers: nn.Module, sees_targets: bool) -> None:
        """Take the user's module, and whether it is called with the targets as well."""
        super().__init__()
        self.layers, self._sees_targets = layers, sees_targets

    def forward(self, activation: Tensor, targets: Tensor) -> Tensor:
        """Return the gradient of each sample's loss, of the activation's shape.

        Raises:
            ValueError: If it has another shape.
        """
        inputs = (activation, targets) if self._sees_targets else (activation,)
        prediction: Tensor = self.layers(*inputs)
        if prediction.shape != activation.shape:
            raise ValueError(
                f"synthesizer: expected {list(activation.shape)}, the shape of the activation, "
                f"got {list(prediction.shape)}"
            )
        return prediction


def own_layers(layers_of: LayersOf, shape: tuple[int, ...], name: str) -> nn.Module:
    """Return the module that a user's function makes for an activation.

    Args:
        layers_of: The function.
        shape: The activation's, without the samples.
        name: What the module is for.

    Raises:
        TypeError: If it returns no module.
    """
    layers: object = layers_of(shape)
    if not isinstance(layers, nn.Module):
        raise TypeError(
            f"{name}: expected a function of the shape that returns a torch.nn.Module, got "
            f"{type(layers).__name__} for {list(shape)}"
        )
    return layers

"""Local heads and synthesizers of a user's own, as functions of an activation's shape."""

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from knet_hvd.pipeline.loss_head import Loss

LayersOf: TypeAlias = Callable[[tuple[int, ...]], nn.Module]
"""Returns a module for activations of a shape, without the samples."""


class OwnHead(nn.Module):
    """Judge an activation by the network's loss of what a user's head makes of it."""

    def __init__(self, layers_of: LayersOf, shape: tuple[int, ...], loss: Loss) -> None:
        """Build the head.

        Args:
            layers_of: Returns a module, called with an activation [n, ...].
            shape: The activation's, without the samples.
            loss: Called with the module's output and the targets.

        Raises:
            TypeError: If the function returns no module.
        """
        super().__init__()
        self.layers = _module(layers_of, shape, "head")
        self._loss = loss

    def forward(self, activation: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a mean over the samples."""
        return self._loss(self.layers(activation), targets)


class OwnSynthesizer(nn.Module):
    """Predict the gradient of an activation by a user's module."""

    def __init__(self, layers_of: LayersOf, shape: tuple[int, ...], sees_targets: bool) -> None:
        """Build the synthesizer.

        Args:
            layers_of: Returns a module, called with an activation [n, ...], and with the
                targets if it sees them.
            shape: The activation's, without the samples.
            sees_targets: Whether it does.

        Raises:
            TypeError: If the function returns no module.
        """
        super().__init__()
        self.layers = _module(layers_of, shape, "synthesizer")
        self._sees_targets = sees_targets

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


def _module(layers_of: LayersOf, shape: tuple[int, ...], name: str) -> nn.Module:
    layers: object = layers_of(shape)
    if not isinstance(layers, nn.Module):
        raise TypeError(
            f"{name}: expected a function of the shape that returns a torch.nn.Module, got "
            f"{type(layers).__name__} for {list(shape)}"
        )
    return layers

"""Local losses: small classifiers behind a stage that is not the last.

`classifier` is after Belilovsky, Eickenberg and Oyallon, "Decoupled Greedy Learning of
CNNs" (ICML 2020), section 4, MLP-SR: the activation is averaged to 2x2 positions, three
1x1 convolutions and a small multilayer perceptron follow. A fully connected activation
gets the perceptron alone.

`predsim` is after Noekland and Eidnes, "Training Neural Networks with Local Error
Signals" (ICML 2019), section 2: 1 % of that classifier's loss, and 99 % of the mean
squared difference between two matrices of similarities within the batch, of the
activations (behind one layer of their own) and of the labels.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

_NUM_POINTWISE = 3
_SIMILARITY_WEIGHT = 0.99


@dataclass(frozen=True, kw_only=True, slots=True)
class AuxiliaryConfig:
    """Set the local loss and how its layers learn.

    Raises:
        ValueError: If a setting is out of range.
    """

    loss: Literal["classifier", "predsim"] = "classifier"
    """classifier: cross entropy (DGL); predsim: with similarities within the batch."""

    hidden_units: int = 128
    """Of the small perceptron; 0 for a linear classifier."""

    learning_rate: float = 0.001
    """Of Adam."""

    def __post_init__(self) -> None:
        if self.hidden_units < 0:
            raise ValueError(f"hidden_units: expected at least 0, got {self.hidden_units}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected > 0, got {self.learning_rate}")


class AuxiliaryLoss(nn.Module):
    """Judge an activation, [n, features] or [n, c, h, w], by the labels."""

    def __init__(self, shape: tuple[int, ...], num_labels: int, config: AuxiliaryConfig) -> None:
        """Build the layers.

        Args:
            shape: The activation's, without the batch: one or three numbers.
            num_labels: Classes.
            config: Which loss.

        Raises:
            ValueError: If the shape has neither one nor three numbers.
        """
        super().__init__()
        if len(shape) not in (1, 3):
            raise ValueError(f"shape: expected [features] or [c, h, w], got {shape}")
        self._num_labels = num_labels
        self._classifier = nn.Sequential(
            *_pointwise(shape), *_perceptron(shape, num_labels, config.hidden_units)
        )
        self._similarity: nn.Module | None = None
        if config.loss == "predsim":
            self._similarity = (
                nn.Linear(shape[0], shape[0], bias=False)
                if len(shape) == 1
                else nn.Conv2d(shape[0], shape[0], 3, padding=1, bias=False)
            )

    def forward(self, activation: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a mean over the samples.

        Args:
            activation: fp32 [n, ...].
            labels: int64 [n].

        Returns:
            fp32 [].
        """
        loss = functional.cross_entropy(self._classifier(activation), labels)
        if self._similarity is None:
            return loss
        one_hot = functional.one_hot(labels, self._num_labels).to(activation.dtype)
        difference = functional.mse_loss(
            similarity_matrix(self._similarity(activation)), similarity_matrix(one_hot)
        )
        return (1 - _SIMILARITY_WEIGHT) * loss + _SIMILARITY_WEIGHT * difference


def similarity_matrix(values: Tensor) -> Tensor:
    """Return the cosine similarity of each sample to each, around their own means.

    Args:
        values: fp32 [n, features], or [n, c, h, w]: then the deviation of each channel
            over its positions stands for the channel.

    Returns:
        fp32 [n, n], from -1 to 1.
    """
    if values.dim() == 4:
        flat = values.flatten(2)
        values = flat.std(dim=2) if flat.shape[2] > 1 else flat.squeeze(2)
    centered = values - values.mean(dim=1, keepdim=True)
    unit = functional.normalize(centered, dim=1, eps=1e-8)
    return unit @ unit.t()


def _pointwise(shape: tuple[int, ...]) -> list[nn.Module]:
    """Return the layers that make a small image of an image."""
    if len(shape) == 1:
        return []
    size = min(2, shape[1]), min(2, shape[2])
    layers: list[nn.Module] = [nn.AdaptiveAvgPool2d(size)]
    for _ in range(_NUM_POINTWISE):
        convolution = nn.Conv2d(shape[0], shape[0], 1, bias=False)
        layers += [convolution, nn.BatchNorm2d(shape[0]), nn.ReLU()]
    return [*layers, nn.Flatten()]


def _perceptron(shape: tuple[int, ...], num_labels: int, hidden_units: int) -> list[nn.Module]:
    positions = min(2, shape[1]) * min(2, shape[2]) if len(shape) == 3 else 1
    num_in = shape[0] * positions
    if hidden_units == 0:
        return [nn.Linear(num_in, num_labels)]
    hidden = [nn.Linear(num_in, hidden_units), nn.ReLU()]
    return [*hidden, nn.Linear(hidden_units, num_labels)]


def local_gradient(loss: AuxiliaryLoss, output: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and its gradient, and leave the layers' own in `.grad`.

    Args:
        loss: The local loss.
        output: fp32 [n, ...], detached.
        labels: int64 [n].

    Returns:
        fp32 [], and fp32 of the output's shape.
    """
    leaf = output.detach().requires_grad_()
    value: Tensor = loss(leaf, labels)
    value.backward()
    gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
    return value.detach(), gradient

"""Synthesizers: small networks that predict the gradient of an activation.

As in the supplement of Jaderberg et al., "Decoupled Neural Interfaces using Synthetic
Gradients" (ICML 2017): after a fully connected layer, hidden layers of 1024 units with
batch normalization and ReLU (two without labels, none with); after a convolution, two
5x5 convolutions of 128 channels; the last layer begins at zero, so that the first
synthetic gradients are zero. Labels enter as one-hot vectors, joined to the activation
or, after the first convolution, added at all positions.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

_PUBLISHED_UNITS = 1024
_PUBLISHED_CHANNELS = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthesizerConfig:
    """Set the size of synthesizers and how they learn.

    Raises:
        ValueError: If a setting is out of range.
    """

    hidden_layers: int | None = None
    """Layers before the last; as published if not given: 2, but 0 where a fully
    connected one sees the labels."""

    hidden_units: int | None = None
    """Units or channels of hidden layers; as published if not given: 1024 or 128."""

    kernel_size: int = 5
    """Of convolutions, in pixels; odd."""

    convolutions: bool = True
    """Predict gradients of images by convolutions, as published; no: by fully connected
    layers, which see the whole image and know where in it they are."""

    targets: Literal["bootstrapped", "true"] = "bootstrapped"
    """What a synthesizer learns to predict. bootstrapped: what the next stage makes of
    its own prediction, as published; true: the gradient of the loss, which stages
    carry back through graphs that they keep. The same with two stages."""

    correct: bool = False
    """Learn from what synthetic gradients missed as well, once the true ones are there:
    late, but nothing is lost. Needs true targets."""

    learning_rate: float = 0.001
    """Of Adam; plain SGD is known not to converge."""

    trust: bool = True
    """Multiply the learning rate of the stage before it by the square of the cosine
    similarity to true gradients that it has reached so far; with `correct`, the
    synthetic gradients themselves. As published: no."""

    def __post_init__(self) -> None:
        if self.hidden_layers is not None and self.hidden_layers < 0:
            raise ValueError(f"hidden_layers: expected at least 0, got {self.hidden_layers}")
        if self.hidden_units is not None and self.hidden_units < 1:
            raise ValueError(f"hidden_units: expected at least 1, got {self.hidden_units}")
        if self.kernel_size < 1 or self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: expected an odd number, got {self.kernel_size}")
        if self.correct and self.targets != "true":
            raise ValueError(f"correct: expected targets 'true', got {self.targets!r}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: expected > 0, got {self.learning_rate}")


class Synthesizer(nn.Module):
    """Predict the gradient of an activation, [n, features] or [n, c, h, w].

    Predictions are gradients of the loss of one sample, not of the mean over the batch,
    so that their size does not depend on the batch's.
    """

    def __init__(
        self, shape: tuple[int, ...], config: SynthesizerConfig, num_labels: int = 0
    ) -> None:
        """Build the layers.

        Args:
            shape: The activation's, without the batch: one or three numbers.
            config: Sizes.
            num_labels: Classes if it is to see the labels, 0 if not.

        Raises:
            ValueError: If the shape has neither one nor three numbers.
        """
        super().__init__()
        if len(shape) not in (1, 3):
            raise ValueError(f"shape: expected [features] or [c, h, w], got {shape}")
        self._num_labels = num_labels
        self._convolve = len(shape) == 3 and config.convolutions
        depth = config.hidden_layers
        if depth is None:
            depth = 0 if num_labels and not self._convolve else 2
        published = _PUBLISHED_CHANNELS if self._convolve else _PUBLISHED_UNITS
        units = config.hidden_units or published
        joined = 0 if self._convolve else num_labels
        features = shape[0] if self._convolve else math.prod(shape)
        sizes = [features + joined, *[units] * depth, features]
        self._first = self._layer(sizes[0], sizes[1], config.kernel_size)
        layers: list[nn.Module] = []
        last = self._first
        for num_in, num_out in pairwise(sizes[1:]):
            last = self._layer(num_in, num_out, config.kernel_size)
            norm = nn.BatchNorm2d if self._convolve else nn.BatchNorm1d
            layers += [norm(num_in), nn.ReLU(), last]
        self._rest = nn.Sequential(*layers)
        self._label_bias: nn.Linear | None = None
        if num_labels and self._convolve:
            self._label_bias = nn.Linear(num_labels, sizes[1], bias=False)
        self._zero(last, depth)

    def _layer(self, num_in: int, num_out: int, kernel_size: int) -> nn.Module:
        if self._convolve:
            padding = kernel_size // 2
            return nn.Conv2d(num_in, num_out, kernel_size, padding=padding)
        return nn.Linear(num_in, num_out)

    def _zero(self, last: nn.Module, depth: int) -> None:
        """Make the first predictions zero."""
        parameters = list(last.parameters())
        if depth == 0 and self._label_bias is not None:
            parameters += self._label_bias.parameters()
        for parameter in parameters:
            nn.init.zeros_(parameter)

    def forward(self, activation: Tensor, labels: Tensor) -> Tensor:
        """Return the predicted gradient.

        Args:
            activation: fp32 [n, ...].
            labels: int64 [n]; not looked at unless built for it.

        Returns:
            fp32 [n, ...].
        """
        inputs = activation if self._convolve else activation.flatten(1)
        if not self._num_labels:
            hidden = self._first(inputs)
        else:
            one_hot = functional.one_hot(labels, self._num_labels).to(inputs.dtype)
            if self._label_bias is None:
                hidden = self._first(torch.cat([inputs, one_hot], dim=1))
            else:
                bias = self._label_bias(one_hot)
                hidden = self._first(inputs) + bias[:, :, None, None]
        output: Tensor = self._rest(hidden)
        return output.view_as(activation)

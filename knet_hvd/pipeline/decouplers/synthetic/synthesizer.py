"""Synthesizers: small networks that predict the gradient of an activation.

As in the supplement of Jaderberg et al., "Decoupled Neural Interfaces using Synthetic
Gradients" (ICML 2017): after a fully connected layer, hidden layers of 1024 units with
batch normalization and ReLU (two without targets, none with); after a convolution, two
5x5 convolutions of 128 channels; the last layer begins at zero, so that the first
synthetic gradients are zero. Targets enter as one-hot vectors, joined to the activation
or, after the first convolution, added at all positions.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.pipeline.decouplers.base import check_dimensions
from knet_hvd.pipeline.decouplers.synthetic.layers import SynthesizerLayers

_PUBLISHED_UNITS = 1024
_PUBLISHED_CHANNELS = 128


class Synthesizer(nn.Module):
    """Predict the gradient of an activation: [n, features], [n, t, features] or [n, c, h, w].

    A sequence is predicted position by position.

    Predictions are gradients of the loss of one sample, not of the mean over the batch,
    so that their size does not depend on the batch's.
    """

    def __init__(
        self, shape: tuple[int, ...], settings: SynthesizerLayers, num_classes: int = 0
    ) -> None:
        """Build the layers.

        Args:
            shape: The activation's, without the batch: one to three numbers.
            settings: The layers.
            num_classes: Classes if it is to see the targets, 0 if not.

        Raises:
            ValueError: If the shape has another number of dimensions.
        """
        super().__init__()
        check_dimensions(shape, "synthesizer")
        self._is_sequence = len(shape) == 2
        shape = shape[1:] if self._is_sequence else shape
        self._num_classes = num_classes
        self._convolve = len(shape) == 3 and settings.convolutions
        depth = settings.hidden_layers
        if depth is None:
            depth = 0 if num_classes and not self._convolve else 2
        published = _PUBLISHED_CHANNELS if self._convolve else _PUBLISHED_UNITS
        units = settings.hidden_units or published
        joined = 0 if self._convolve else num_classes
        features = shape[0] if self._convolve else math.prod(shape)
        sizes = [features + joined, *[units] * depth, features]
        self._first = self._layer(sizes[0], sizes[1], settings.kernel_size)
        layers: list[nn.Module] = []
        last = self._first
        for num_in, num_out in pairwise(sizes[1:]):
            last = self._layer(num_in, num_out, settings.kernel_size)
            norm = nn.BatchNorm2d if self._convolve else nn.BatchNorm1d
            layers += [norm(num_in), nn.ReLU(), last]
        self._rest = nn.Sequential(*layers)
        self._target_bias: nn.Linear | None = None
        if num_classes and self._convolve:
            self._target_bias = nn.Linear(num_classes, sizes[1], bias=False)
        self._zero(last, depth)

    def _layer(self, num_in: int, num_out: int, kernel_size: int) -> nn.Module:
        if self._convolve:
            padding = kernel_size // 2
            return nn.Conv2d(num_in, num_out, kernel_size, padding=padding)
        return nn.Linear(num_in, num_out)

    def _zero(self, last: nn.Module, depth: int) -> None:
        """Make the first predictions zero."""
        parameters = list(last.parameters())
        if depth == 0 and self._target_bias is not None:
            parameters += self._target_bias.parameters()
        for parameter in parameters:
            nn.init.zeros_(parameter)

    def forward(self, activation: Tensor, targets: Tensor) -> Tensor:
        """Return the predicted gradient.

        Args:
            activation: fp32 [n, ...].
            targets: int64 [n], or [n, t] for a sequence; not looked at unless built for it.

        Returns:
            fp32 [n, ...].
        """
        inputs = activation
        if self._is_sequence:
            inputs = activation.flatten(0, 1)
        elif not self._convolve:
            inputs = activation.flatten(1)
        if not self._num_classes:
            hidden = self._first(inputs)
        else:
            if self._is_sequence:
                targets = _targets_of_positions(targets, activation.shape[1])
            one_hot = functional.one_hot(targets, self._num_classes).to(inputs.dtype)
            if self._target_bias is None:
                hidden = self._first(torch.cat([inputs, one_hot], dim=1))
            else:
                bias = self._target_bias(one_hot)
                hidden = self._first(inputs) + bias[:, :, None, None]
        output: Tensor = self._rest(hidden)
        return output.view_as(activation)


def _targets_of_positions(targets: Tensor, length: int) -> Tensor:
    """Return [n * length] targets from one for each sequence or one for each position."""
    if targets.dim() == 1:
        targets = targets[:, None].expand(-1, length)
    return targets.flatten()

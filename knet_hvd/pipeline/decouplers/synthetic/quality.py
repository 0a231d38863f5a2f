"""The quality of a synthesizer's predictions: how far a stage follows them."""

import torch
from torch import Tensor, nn

_SCALE = 20.0
"""Adam moves a parameter by about its learning rate: 20 * 0.001 a step."""


class FullQuality(nn.Module):
    """Follow every prediction in full, as published."""

    def value(self) -> float:
        """Return 1."""
        return 1.0

    def learn(self, quality: Tensor) -> None:
        """Do nothing: what predictions turn out to be changes nothing."""


class PredictionQuality(FullQuality):
    """Learn how well synthetic gradients point where true ones do.

    Adam's steps are as long for a poor prediction as for a good one; a share of them
    that falls with the similarity keeps a stage near its weights until its synthesizer
    can lead it. Not from a paper; Jaderberg et al. train everything at 0.00003 instead.
    Where true gradients correct the synthetic ones later, the quality is not the
    similarity but the factor on a prediction that leaves the least to correct.

    Either is a running mean in the form of a parameter, so that it is averaged
    over replicas and saved in checkpoints as any other.
    """

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()
        self._quality = nn.Parameter(torch.zeros(()))

    def value(self) -> float:
        """Return the quality so far, from 0 to 1."""
        return float(self._scaled().detach().clamp(0, 1))

    def learn(self, quality: Tensor) -> None:
        """Leave the gradient towards a new quality in the parameter.

        Args:
            quality: fp32 scalar, of the latest prediction.
        """
        (self._scaled() - quality.detach().clamp(-1, 1)).square().backward()

    def _scaled(self) -> Tensor:
        return _SCALE * self._quality

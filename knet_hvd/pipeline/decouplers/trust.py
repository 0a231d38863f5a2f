"""Trust in a synthesizer: how far a stage follows it."""

import torch
from torch import Tensor, nn

_SCALE = 20.0
"""Adam moves a parameter by about its learning rate: 20 * 0.001 a step."""


class Trust(nn.Module):
    """Learn how well synthetic gradients point where true ones do.

    Adam's steps are as long for a poor prediction as for a good one; a share of them
    that falls with the similarity keeps a stage near its weights until its synthesizer
    can lead it. Not from a paper; Jaderberg et al. train everything at 0.00003 instead.
    Where true gradients correct the synthetic ones later, it is not the similarity but
    the factor on a prediction that leaves the least to correct.

    Either is a running mean in the form of a parameter, so that it is averaged
    over replicas and saved in checkpoints as any other.
    """

    def __init__(self) -> None:
        """Begin without trust."""
        super().__init__()
        self._similarity = nn.Parameter(torch.zeros(()))

    def mean(self) -> float:
        """Return the similarity so far, from 0 to 1."""
        return float(self._scaled().detach().clamp(0, 1))

    def loss(self, similarity: Tensor) -> Tensor:
        """Return how far a new similarity is from the one learned, squared.

        Args:
            similarity: fp32 scalar.
        """
        return (self._scaled() - similarity.detach()).square()

    def _scaled(self) -> Tensor:
        return _SCALE * self._similarity

"""Local response normalization as one 1x1 convolution (Krizhevsky et al., 2012)."""

import torch
from torch import Tensor, nn


class ResponseNorm(nn.LocalResponseNorm):
    """Give what ``nn.LocalResponseNorm`` gives, several times faster on a CPU.

    The sum of squares over neighboring channels is a convolution with a banded matrix,
    which has a fast kernel; PyTorch's own pools over a fifth dimension, and that took a
    third of CifarNet's training step.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalize activations [n, c, h, w]; same shape and dtype."""
        weight = self._band(images.shape[1], images)
        sums = nn.functional.conv2d(images * images, weight)
        return images * (sums + self.k) ** -self.beta

    def _band(self, channels: int, like: Tensor) -> Tensor:
        """Return alpha / size on the band of averaged channels [c, c, 1, 1]."""
        index = torch.arange(channels, device=like.device)
        offset = index[None, :] - index[:, None]
        # PyTorch's window is off-centre where its size is even.
        inside = (offset >= -(self.size // 2)) & (offset <= (self.size - 1) // 2)
        band = inside.to(like.dtype) * (self.alpha / self.size)
        return band.view(channels, channels, 1, 1)

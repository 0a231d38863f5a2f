"""Random crops and flips of small images, reproducible and without loops."""

import torch
from torch import Tensor
from torch.nn import functional

_PADDING = 4


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Crop each image at random after zero padding, and mirror half of them.

    Padding by 4 pixels, a crop of the original size and a horizontal flip are
    the augmentation of He et al. ("Deep Residual Learning", CVPR 2016, section
    4.2) for CIFAR-10.

    Args:
        images: uint8 [n, c, h, w] on the CPU.
        generator: The source of all random numbers: its state determines the
            result.

    Returns:
        uint8 [n, c, h, w], a new tensor.

    Raises:
        TypeError: The images are not uint8.
        ValueError: The images do not have four dimensions.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.dim() != 4:
        raise ValueError(f"images must be [n, c, h, w], got {list(images.shape)}")
    count, _, height, width = images.shape
    top, left = torch.randint(
        0, 2 * _PADDING + 1, (2, count), generator=generator
    ).unbind()
    flip = torch.randint(0, 2, (count,), generator=generator).bool()
    padded = functional.pad(images, (_PADDING,) * 4)
    # A view of all crops [n, c, tops, lefts, h, w]; indexing copies only the
    # chosen ones, row by row.
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    chosen = crops[torch.arange(count), :, top, left]
    return torch.where(flip[:, None, None, None], chosen.flip(3), chosen)

"""Random crops and flips of small images, reproducible and without loops."""

import torch
from torch import Tensor
from torch.nn import functional

_PADDING = 4


def augment(images: Tensor, generator: torch.Generator, *, crop_size: int | None = None) -> Tensor:
    """Crop each image at random, and mirror half of them.

    Without a size, images are first padded by 4 black pixels and keep their own: the
    augmentation of He et al. ("Deep Residual Learning", CVPR 2016, section 4.2) for
    CIFAR-10. With one, squares are cut from the image itself: 24 pixels are
    TensorFlow's tutorial, whose network Wen et al. train ("TernGrad", NIPS 2017).

    Args:
        images: uint8 [n, c, h, w] on the CPU.
        generator: The source of all random numbers: its state determines the
            result.
        crop_size: Pixels of a square's side.

    Returns:
        uint8 [n, c, h, w], or [n, c, crop_size, crop_size]; a new tensor.

    Raises:
        TypeError: The images are not uint8.
        ValueError: The images do not have four dimensions, or are smaller than
            the square.
    """
    _check_images(images, crop_size)
    if crop_size is None:
        height, width = images.shape[2:]
        images = functional.pad(images, (_PADDING,) * 4)
    else:
        height = width = crop_size
    # A view of all crops [n, c, tops, lefts, h, w]; indexing copies only the
    # chosen ones, row by row.
    crops = images.unfold(2, height, 1).unfold(3, width, 1)
    count = len(images)
    top, left = (
        torch.randint(0, crops.shape[dim], (count,), generator=generator) for dim in (2, 3)
    )
    flip = torch.randint(0, 2, (count,), generator=generator).bool()
    chosen = crops[torch.arange(count), :, top, left]
    return torch.where(flip[:, None, None, None], chosen.flip(3), chosen)


def center_crop(images: Tensor, crop_size: int) -> Tensor:
    """Cut the square in the middle out of each image.

    Args:
        images: uint8 [n, c, h, w].
        crop_size: Pixels of a square's side.

    Returns:
        uint8 [n, c, crop_size, crop_size], a view.

    Raises:
        TypeError: The images are not uint8.
        ValueError: The images do not have four dimensions, or are smaller than
            the square.
    """
    _check_images(images, crop_size)
    top, left = ((extent - crop_size) // 2 for extent in images.shape[2:])
    return images[:, :, top : top + crop_size, left : left + crop_size]


def _check_images(images: Tensor, crop_size: int | None) -> None:
    """Raise unless squares of this size can be cut out of the images."""
    if images.dtype != torch.uint8:
        raise TypeError(f"images: expected uint8, got {images.dtype}")
    if images.dim() != 4:
        raise ValueError(f"images: expected [n, c, h, w], got {list(images.shape)}")
    if crop_size is not None and not 1 <= crop_size <= min(images.shape[2:]):
        raise ValueError(
            f"crop_size: expected 1 to {min(images.shape[2:])}, the images' smaller "
            f"side, got {crop_size}"
        )

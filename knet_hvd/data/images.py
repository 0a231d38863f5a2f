"""Data sets of labeled images, held in memory as bytes."""

import math
from functools import partial

import torch
from torch import Tensor

from knet_hvd.data.augmentation import augment, center_crop
from knet_hvd.data.dataset import Dataset
from knet_hvd.data.settings import ImageSettings


class ImageDataset(Dataset):
    """Hold images uint8 [n, c, h, w] and their labels int64 [n].

    A network sees them as floats, as `settings` say.

    Attributes:
        mean: The mean of each channel over the training split, on the scale where 255 is
            1.0.
        std: The (population) standard deviation of each channel over the training split,
            on the same scale; 1.0 for a constant channel.
    """

    def __init__(
        self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], num_classes: int
    ) -> None:
        """Compute the mean and deviation of the channels.

        Args:
            train: Images uint8 [n, c, h, w] and labels int64 [n].
            test: Images uint8 [m, c, h, w] and labels int64 [m].
            num_classes: The number of classes.

        Raises:
            TypeError: Images are not uint8 or labels not int64.
            ValueError: The shapes do not fit together, a split is empty, or a
                label is out of range.
        """
        for images, labels in (train, test):
            _check_split(images, labels)
        if train[0].shape[1:] != test[0].shape[1:]:
            raise ValueError(
                "train, test: expected images of one shape, got "
                f"{list(train[0].shape[1:])} and {list(test[0].shape[1:])}"
            )
        super().__init__(train, test, num_classes=num_classes)
        self._size: tuple[int, ...] = tuple(train[0].shape[2:])
        self.mean, self.std = _channel_statistics(train[0])
        self._settings = ImageSettings()

    def configure(self, settings: ImageSettings) -> None:
        """Let the network see the images as settings say.

        Raises:
            ValueError: If `crop_size` is larger than the images.
        """
        crop_size = settings.crop_size
        if crop_size is not None and crop_size > min(self._size):
            raise ValueError(
                f"crop_size: expected at most {min(self._size)}, the side of the images, "
                f"got {crop_size}"
            )
        self._settings = settings
        self.augment = partial(augment, crop_size=crop_size) if settings.augment else None

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return what the network takes: cropped, normalized, in channels last.

        Convolutions are up to twice as fast on CPUs with channels last. Parameters stay
        as they are, since Horovod takes only contiguous ones; and the copy is explicit,
        since one channel would count as both layouts.

        Args:
            inputs: uint8 [n, c, h, w]; the middle is taken if they are too large.

        Returns:
            fp32 [n, c, h, w], or of the settings' `crop_size`, in channels last.
        """
        crop_size = self._settings.crop_size
        if crop_size is not None and inputs.shape[2:] != (crop_size, crop_size):
            inputs = center_crop(inputs, crop_size)
        normal = self.normalize(inputs)
        layout = torch.empty_like(normal, memory_format=torch.channels_last)
        return layout.copy_(normal)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn bytes into floats, of mean 0 and deviation 1 a channel or from 0 to 1.

        Args:
            images: uint8 [n, c, h, w], on any device.

        Returns:
            float32 [n, c, h, w] on the same device.

        Raises:
            TypeError: The images are not uint8.
            ValueError: The images do not have this data set's channels.
        """
        if images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8, got {images.dtype}")
        if images.dim() != 4 or images.shape[1] != len(self.mean):
            raise ValueError(
                f"images: expected [n, {len(self.mean)}, h, w], got {list(images.shape)}"
            )
        scaled = images.to(torch.float32) / 255
        if self._settings.inputs == "unit":
            return scaled
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device)
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device)
        return (scaled - mean[:, None, None]) / std[:, None, None]


def _check_split(images: Tensor, labels: Tensor) -> None:
    """Raise unless images and labels are a split."""
    if images.dtype != torch.uint8 or labels.dtype != torch.int64:
        raise TypeError(
            f"images, labels: expected uint8 and int64, got {images.dtype} and {labels.dtype}"
        )
    if images.dim() != 4 or images.numel() == 0:
        raise ValueError(f"images: expected [n, c, h, w], not empty, got {list(images.shape)}")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels: expected [{len(images)}], as there are {len(images)} images, "
            f"got {list(labels.shape)}"
        )


def _channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel of uint8 images."""
    # A histogram of 256 counts is exact and needs no float copy of the images,
    # which for CIFAR-10 would be eight times their size.
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in images.transpose(0, 1):
        counts = torch.bincount(channel.reshape(-1), minlength=256).double()
        weights = counts / counts.sum()
        mean = float((weights * levels).sum())
        variance = float((weights * (levels - mean) ** 2).sum())
        constant = int((counts > 0).sum()) == 1
        means.append(mean)
        stds.append(1.0 if constant else math.sqrt(variance))
    return tuple(means), tuple(stds)

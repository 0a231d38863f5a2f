"""A data set of labeled images, held in memory."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageDataset:
    """Hold the training and the test split of a data set of images.

    `from_splits` checks the tensors and computes the statistics.

    Attributes:
        train_images: uint8 [n, c, h, w].
        train_labels: int64 [n], 0 to `num_classes` - 1.
        test_images: uint8 [m, c, h, w].
        test_labels: int64 [m], 0 to `num_classes` - 1.
        num_classes: The number of classes.
        mean: The mean of each channel over the training split, on the scale
            where 255 is 1.0.
        std: The (population) standard deviation of each channel over the
            training split, on the same scale; 1.0 for a constant channel.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_splits(
        cls, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], num_classes: int
    ) -> "ImageDataset":
        """Build a data set and compute the mean and deviation of its channels.

        Args:
            train: Images uint8 [n, c, h, w] and labels int64 [n].
            test: Images uint8 [m, c, h, w] and labels int64 [m].
            num_classes: The number of classes.

        Returns:
            The data set.

        Raises:
            TypeError: Images are not uint8 or labels not int64.
            ValueError: The shapes do not fit together, a split is empty, or a
                label is out of range.
        """
        for images, labels in (train, test):
            _check_split(images, labels, num_classes)
        if train[0].shape[1:] != test[0].shape[1:]:
            raise ValueError(
                "train, test: expected images of one shape, got "
                f"{list(train[0].shape[1:])} and {list(test[0].shape[1:])}"
            )
        mean, std = _channel_statistics(train[0])
        return cls(
            train_images=train[0],
            train_labels=train[1],
            test_images=test[0],
            test_labels=test[1],
            num_classes=num_classes,
            mean=mean,
            std=std,
        )

    @property
    def in_shape(self) -> tuple[int, int, int]:
        """Return the channels, height and width of an image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width

    def normalize(self, images: Tensor, *, unit_range: bool = False) -> Tensor:
        """Turn bytes into the floats that a network takes.

        Args:
            images: uint8 [n, c, h, w], on any device.
            unit_range: Only scale to [0, 1], instead of bringing each channel
                to zero mean and unit deviation over the training split.

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
        if unit_range:
            return scaled
        mean = torch.tensor(self.mean, dtype=torch.float32, device=images.device)
        std = torch.tensor(self.std, dtype=torch.float32, device=images.device)
        return (scaled - mean[:, None, None]) / std[:, None, None]


def _check_split(images: Tensor, labels: Tensor, num_classes: int) -> None:
    """Raise unless images and labels are a split of `num_classes` classes."""
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
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"labels: expected 0 to {num_classes - 1}, got {low} to {high}")


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

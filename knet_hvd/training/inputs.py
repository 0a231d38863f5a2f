"""From the bytes of a data set to what a model takes."""

from functools import partial

import torch
from torch import Tensor

from knet_hvd.data import ImageDataset, augment, center_crop
from knet_hvd.data.sharding import Transform
from knet_hvd.training.config import JobConfig


def input_shape(dataset: ImageDataset, config: JobConfig) -> tuple[int, int, int]:
    """Return channels, height and width of an image as the model sees it.

    Raises:
        ValueError: If `crop_size` is larger than the images.
    """
    channels, height, width = dataset.in_shape
    if config.crop_size is None:
        return dataset.in_shape
    if config.crop_size > min(height, width):
        raise ValueError(
            f"crop_size: expected at most {min(height, width)}, the side of "
            f"{config.data}'s images, got {config.crop_size}"
        )
    return channels, config.crop_size, config.crop_size


class ImagePreprocessor:
    """Crop, normalize and lay out images as a job's configuration says.

    Attributes:
        in_shape: Channels, height and width of an image as the model sees it.
        transform: What changes the training images of a batch; None for nothing.
    """

    def __init__(self, dataset: ImageDataset, config: JobConfig) -> None:
        """Keep the settings.

        Args:
            dataset: Where the images are from.
            config: The job's configuration.

        Raises:
            ValueError: If `crop_size` is larger than the images.
        """
        self._dataset = dataset
        self._unit_range = config.inputs == "unit"
        self._crop_size = config.crop_size
        self.in_shape = input_shape(dataset, config)
        self.transform: Transform | None = None
        if config.augment:
            self.transform = partial(augment, crop_size=config.crop_size)

    def __call__(self, images: Tensor) -> Tensor:
        """Return what the model takes.

        Convolutions are up to twice as fast on CPUs with channels last. Parameters stay
        as they are, since Horovod takes only contiguous ones; and the copy is explicit,
        since one channel would count as both layouts.

        Args:
            images: uint8 [n, c, h, w]; the middle is taken if they are too large.

        Returns:
            fp32 [n, *in_shape], normalized, in channels last.
        """
        if images.shape[1:] != self.in_shape and self._crop_size is not None:
            images = center_crop(images, self._crop_size)
        inputs = self._dataset.normalize(images, unit_range=self._unit_range)
        layout = torch.empty_like(inputs, memory_format=torch.channels_last)
        return layout.copy_(inputs)

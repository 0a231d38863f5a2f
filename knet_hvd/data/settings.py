"""Settings of data sets. Imports nothing heavy: the jobs' flags are read from them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageSettings:
    """Say what a network sees of images.

    Attributes:
        augment: Crop the images of a training batch at random, and mirror half of them.
        crop_size: Side of the square that is cut out, in pixels: at random with
            `augment`, else in the middle; None for the whole image.
        inputs: standardized: mean 0 and deviation 1 a channel; unit: 0 to 1.
    """

    augment: bool = False
    crop_size: int | None = None
    inputs: Literal["standardized", "unit"] = "standardized"

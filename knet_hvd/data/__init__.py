"""Data sets of labeled images, their shards and their augmentation."""

from typing import TYPE_CHECKING

from knet_hvd.data.registry import DATASETS, load_dataset
from knet_hvd.lazy import lazy_names

if TYPE_CHECKING:
    from knet_hvd.data.augmentation import augment, center_crop
    from knet_hvd.data.dataset import Dataset, Split, accuracy, cross_entropy
    from knet_hvd.data.images import ImageDataset
    from knet_hvd.data.sharding import ShardedBatches

__getattr__ = lazy_names(__name__, "augmentation", "dataset", "images", "sharding")

__all__ = [
    "DATASETS",
    "Dataset",
    "ImageDataset",
    "ShardedBatches",
    "Split",
    "accuracy",
    "augment",
    "center_crop",
    "cross_entropy",
    "load_dataset",
]

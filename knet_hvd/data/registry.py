"""The data sets by name."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from knet_hvd.data.cifar10 import CIFAR10_FILES, load_cifar10
from knet_hvd.data.dataset import ImageDataset
from knet_hvd.data.digits import load_digits
from knet_hvd.data.mnist import MNIST_FILES, load_mnist
from knet_hvd.errors import DataError

_FROM_FILES: Mapping[str, tuple[Callable[[Path], ImageDataset], tuple[str, ...]]] = (
    MappingProxyType({"cifar10": (load_cifar10, CIFAR10_FILES), "mnist": (load_mnist, MNIST_FILES)})
)

DATASETS: tuple[str, ...] = ("digits", *sorted(_FROM_FILES))


def load_dataset(name: str, data_dir: Path | None = None) -> ImageDataset:
    """Load a data set into memory; nothing is ever downloaded.

    - `digits`: 1,797 images of 8x8 pixels that come with scikit-learn.
    - `mnist`: the four official IDX files, gzipped or not.
    - `cifar10`: the six official binary files, in `data_dir` or in its
      subdirectory `cifar-10-batches-bin`.

    Args:
        name: One of `DATASETS`.
        data_dir: The directory of the files; `digits` takes none.

    Returns:
        The data set.

    Raises:
        ValueError: The name is unknown.
        DataError: A file is missing, truncated or malformed.
    """
    if name == "digits":
        return load_digits()
    if name not in _FROM_FILES:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    load, files = _FROM_FILES[name]
    if data_dir is None or not os.path.isdir(data_dir):  # Path.is_dir may raise
        given = "no directory was given" if data_dir is None else f"no {str(data_dir)[:200]}"
        raise DataError(
            f"data set {name!r} is read from files, but {given}: "
            f"name with --data-dir the directory that holds {', '.join(files)}"
        )
    return load(data_dir)

"""The data sets by name. Imports none of them: a wrong name is refused before torch is there."""

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from knet_hvd.errors import DataError

if TYPE_CHECKING:
    from knet_hvd.data.images import ImageDataset

DATASETS = ("digits", "cifar10", "mnist")
"""Each is a module of its name beside this one, with ``load_NAME`` and, if it is read from
files, ``NAME_FILES``, what they are called."""


def load_dataset(name: str, data_dir: Path | None = None) -> "ImageDataset":
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
    check_dataset(name)
    module = import_module(f"knet_hvd.data.{name}")
    load = getattr(module, f"load_{name}")
    files = getattr(module, f"{name.upper()}_FILES", ())
    dataset: ImageDataset = load(_folder(name, data_dir, files)) if files else load()
    return dataset


def check_dataset(name: str) -> None:
    """Raise unless there is a data set of this name.

    Raises:
        ValueError: Lists those that there are.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")


def _folder(name: str, data_dir: Path | None, files: tuple[str, ...]) -> Path:
    """Return the folder of a data set's files."""
    if data_dir is None or not os.path.isdir(data_dir):  # Path.is_dir may raise
        given = "no directory was given" if data_dir is None else f"no {str(data_dir)[:200]}"
        raise DataError(
            f"data set {name!r} is read from files, but {given}: "
            f"name with --data-dir the directory that holds {', '.join(files)}"
        )
    return data_dir

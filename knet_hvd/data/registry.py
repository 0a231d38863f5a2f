"""The data sets by name. Imports none of them: a wrong name is refused before torch is there."""

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from knet_hvd.data.settings import ImageSettings
from knet_hvd.errors import DataError
from knet_hvd.factories import Factory, is_path

if TYPE_CHECKING:
    from knet_hvd.data.dataset import Dataset

DATASETS = ("digits", "cifar10", "mnist", "text")
"""Each is a module of its name beside this one, with ``load_NAME`` and, if it is read from
files, ``NAME_FILES``, what they are called."""


def load_dataset(
    name: str, data_dir: Path | None = None, settings: ImageSettings | None = None
) -> "Dataset":
    """Load a data set into memory; nothing is ever downloaded.

    - `digits`: 1,797 images of 8x8 pixels that come with scikit-learn.
    - `mnist`: the four official IDX files, gzipped or not.
    - `cifar10`: the six official binary files, in `data_dir` or in its
      subdirectory `cifar-10-batches-bin`.
    - `text`: characters of Python's documentation, or of the text in `data_dir`.
    - `package.module:function`: what the user's function returns, which may have a
      parameter `data_dir`.

    Args:
        name: One of `DATASETS`, or a module and a function of it.
        data_dir: The directory of the files; for `text` a file or a directory.
        settings: What a network sees of images; all of it if not given.

    Returns:
        The data set.

    Raises:
        ValueError: The name is unknown, or a setting does not fit.
        DataError: A file is missing, truncated or malformed.
        KnetError: The user's function cannot be imported, fails, or returns something
            else than a `Dataset`.
    """
    check_dataset(name)
    dataset = _own(name, data_dir) if is_path(name) else _built_in(name, data_dir)
    dataset.configure(settings or ImageSettings())
    return dataset


def check_dataset(name: str) -> None:
    """Raise unless a name is that of a data set here, or may be one of the user's.

    Raises:
        ValueError: Lists those that there are.
    """
    if not is_path(name) and name not in DATASETS:
        raise ValueError(
            f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}, or name a "
            "function of yours as package.module:function"
        )


def _own(name: str, data_dir: Path | None) -> "Dataset":
    from knet_hvd.data.dataset import Dataset

    return Factory(name).call(Dataset, {"data_dir": data_dir})


def _built_in(name: str, data_dir: Path | None) -> "Dataset":
    module = import_module(f"knet_hvd.data.{name}")
    load: Callable[..., Dataset] = getattr(module, f"load_{name}")
    files = getattr(module, f"{name.upper()}_FILES", ())
    return load(_folder(name, data_dir, files) if files else data_dir)


def _folder(name: str, data_dir: Path | None, files: tuple[str, ...]) -> Path:
    """Return the folder of a data set's files."""
    if data_dir is None or not os.path.isdir(data_dir):  # Path.is_dir may raise
        given = "no directory was given" if data_dir is None else f"no {str(data_dir)[:200]}"
        raise DataError(
            f"data set {name!r} is read from files, but {given}: "
            f"name with --data-dir the directory that holds {', '.join(files)}"
        )
    return data_dir

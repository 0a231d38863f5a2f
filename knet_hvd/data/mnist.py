"""MNIST from its four official IDX files.

Source: LeCun, Cortes and Burges, "The MNIST Database of Handwritten Digits"
(1998). Fashion-MNIST and KMNIST come in the same files and load as well.

An IDX file is: two zero bytes, a type code (8: unsigned byte), the number of
dimensions, each dimension as a big-endian 32-bit number, then the values.
"""

import gzip
import math
import zlib
from io import BufferedIOBase
from pathlib import Path

import torch
from torch import Tensor

from knet_hvd.data.folders import find_file
from knet_hvd.data.images import ImageDataset
from knet_hvd.errors import DataError

MNIST_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_NUM_CLASSES = 10
_IMAGE_SIZE = 28
# A damaged header must not make us reserve terabytes.
_MAX_BYTES = 1 << 30
_FIX = "fetch or unpack the file again"


def load_mnist(data_dir: Path) -> ImageDataset:
    """Load MNIST (LeCun, Cortes and Burges 1998).

    Args:
        data_dir: The folder of the files ``MNIST_FILES``, or the one above ``MNIST/raw``,
            where torchvision keeps them. Each may have ``.gz`` added, and a dot in place
            of its second hyphen (``train-images.idx3-ubyte``).

    Returns:
        Images uint8 [n, 1, 28, 28] in 10 classes (officially 60,000 for
        training and 10,000 for the test).

    Raises:
        DataError: A file is missing, truncated or malformed.
    """
    paths = [_find(data_dir, name) for name in MNIST_FILES]
    train, test = _load_split(*paths[:2]), _load_split(*paths[2:])
    return ImageDataset(train, test, _NUM_CLASSES)


def _find(data_dir: Path, name: str) -> Path:
    """Return the path of a file, plain or gzipped."""
    dotted = name.replace("-idx", ".idx")
    names = (name, f"{name}.gz", dotted, f"{dotted}.gz")
    return find_file(data_dir, ("", "MNIST/raw", "raw"), names, MNIST_FILES)


def _load_split(images_path: Path, labels_path: Path) -> tuple[Tensor, Tensor]:
    """Return the images uint8 [n, 1, 28, 28] and labels int64 [n] of a split."""
    images, labels = read_idx(images_path, num_dims=3), read_idx(labels_path, 1)
    height, width = images.shape[1:]
    if (height, width) != (_IMAGE_SIZE, _IMAGE_SIZE):
        raise DataError(
            f"{images_path}: expected images of 28x28 pixels, got {height}x{width}: "
            "this is not an MNIST file"
        )
    if len(images) != len(labels):
        raise DataError(
            f"{labels_path}: expected {len(images)} labels, one for each image of "
            f"{images_path.name}, got {len(labels)}: take both from one source"
        )
    highest = int(labels.max())
    if highest >= _NUM_CLASSES:
        raise DataError(f"{labels_path}: expected labels 0 to 9, got {highest}: {_FIX}")
    return images[:, None], labels.to(torch.int64)


def read_idx(path: Path, num_dims: int) -> Tensor:
    """Read one IDX file of unsigned bytes (LeCun, Cortes and Burges 1998).

    Args:
        path: The file, gzipped if its name ends in `.gz`.
        num_dims: The number of dimensions that it must have.

    Returns:
        uint8, with the dimensions that the file states.

    Raises:
        DataError: The file cannot be read, is no IDX file of `num_dims`
            dimensions, is empty, or has not exactly the stated length.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            dims = _read_dims(file, path, num_dims)
            expected = math.prod(dims)
            # One byte more than expected, to notice a file that is too long.
            payload = _read_at_most(file, expected + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}): {_FIX}") from error
    if len(payload) != expected:
        actual = "more" if len(payload) > expected else f"{len(payload)}"
        raise DataError(f"{path}: expected {expected} bytes after the header, got {actual}: {_FIX}")
    return torch.frombuffer(payload, dtype=torch.uint8).reshape(dims)


def _read_dims(file: BufferedIOBase, path: Path, num_dims: int) -> list[int]:
    """Read the header and return the dimensions."""
    magic = bytes((0, 0, 8, num_dims))
    size = 4 + 4 * num_dims
    header = file.read(size)
    if len(header) < size:
        raise DataError(f"{path}: expected a header of {size} bytes, got {len(header)}: {_FIX}")
    if header[:4] != magic:
        raise DataError(
            f"{path}: expected the magic number 0x{magic.hex()}, "
            f"got 0x{header[:4].hex()}: this is not the file that its name says"
        )
    dims = [int.from_bytes(header[i : i + 4], "big") for i in range(4, size, 4)]
    if not 0 < math.prod(dims) <= _MAX_BYTES:
        raise DataError(
            f"{path}: expected 1 to {_MAX_BYTES} values, the header states {dims}: {_FIX}"
        )
    return dims


def _read_at_most(file: BufferedIOBase, limit: int) -> bytearray:
    """Read up to `limit` bytes piece by piece."""
    # Reserving `limit` at once would trust the header of a truncated file.
    payload = bytearray()
    while piece := file.read(min(1 << 20, limit - len(payload))):
        payload += piece
    return payload

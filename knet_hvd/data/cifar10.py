"""CIFAR-10 from its official binary files.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images"
(technical report, University of Toronto, 2009), "binary version".

A record is one byte of label and 3,072 bytes of image: the red, the green and
the blue plane, 32x32 each, row by row. A file holds 10,000 records.
"""

from pathlib import Path

import torch
from torch import Tensor

from knet_hvd.data.folders import find_file
from knet_hvd.data.images import ImageDataset
from knet_hvd.errors import DataError

CIFAR10_FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
RECORD_BYTES = 1 + 3 * 32 * 32
_SUBDIRECTORY = "cifar-10-batches-bin"
_NUM_CLASSES = 10
_FIX = "fetch or unpack the binary version of CIFAR-10 again"


def load_cifar10(data_dir: Path, *, records_per_file: int = 10_000) -> ImageDataset:
    """Load CIFAR-10 (Krizhevsky 2009).

    Args:
        data_dir: The directory of the files `CIFAR10_FILES`, or the directory
            above, in which they are in `cifar-10-batches-bin`.
        records_per_file: The number of images that each file must hold.

    Returns:
        Images uint8 [n, 3, 32, 32] in 10 classes (officially 50,000 for
        training and 10,000 for the test).

    Raises:
        DataError: A file is missing, truncated or malformed.
    """
    paths = [
        find_file(data_dir, ("", _SUBDIRECTORY), (name,), CIFAR10_FILES) for name in CIFAR10_FILES
    ]
    *train, test = (_read_records(path, records_per_file) for path in paths)
    images, labels = zip(*train, strict=True)
    return ImageDataset((torch.cat(images), torch.cat(labels)), test, _NUM_CLASSES)


def _read_records(path: Path, num_records: int) -> tuple[Tensor, Tensor]:
    """Return the images uint8 [n, 3, 32, 32] and labels int64 [n] of a file."""
    expected = num_records * RECORD_BYTES
    try:
        # The length first: a file of any size may lie there under that name.
        actual = path.stat().st_size
        content = bytearray(path.read_bytes() if actual == expected else b"")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}): {_FIX}") from error
    if len(content) != expected:
        raise DataError(
            f"{path}: expected {expected} bytes ({num_records} records of "
            f"{RECORD_BYTES}), got {actual}: {_FIX}"
        )
    records = torch.frombuffer(content, dtype=torch.uint8).reshape(-1, RECORD_BYTES)
    labels = records[:, 0].to(torch.int64)
    highest = int(labels.max())
    if highest >= _NUM_CLASSES:
        raise DataError(f"{path}: expected labels 0 to 9, got {highest}: {_FIX}")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels

"""The parser of CIFAR-10's files: right ones read, damaged ones refused."""

from pathlib import Path

import pytest
import torch

from knet_hvd.data import load_dataset
from knet_hvd.data.cifar10 import CIFAR10_FILES, RECORD_BYTES, load_cifar10
from knet_hvd.errors import DataError


def random_bytes(*shape: int) -> torch.Tensor:
    """Return the same random uint8 values at each call."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def write_cifar10(directory: Path, records_per_file: int) -> None:
    """Write a small data set in CIFAR-10's files."""
    directory.mkdir(exist_ok=True)
    for number, name in enumerate(CIFAR10_FILES):
        records = random_bytes(records_per_file, RECORD_BYTES) // (number + 1)
        records[:, 0] = torch.arange(records_per_file) % 10
        (directory / name).write_bytes(bytes(records.flatten().tolist()))


def check_one_line(error: pytest.ExceptionInfo[DataError], *parts: str) -> None:
    """Check that a message is one line and names all parts."""
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("subdirectory", ["", "cifar-10-batches-bin"])
def test_cifar10_reads_what_was_written(tmp_path: Path, subdirectory: str) -> None:
    write_cifar10(tmp_path / subdirectory, records_per_file=12)
    cifar10 = load_cifar10(tmp_path, records_per_file=12)
    assert cifar10.train.inputs.shape == (60, 3, 32, 32)
    assert cifar10.train.targets.tolist() == [i % 10 for i in range(12)] * 5
    # The image of a record: the red plane row by row, then green, then blue.
    first = random_bytes(12, RECORD_BYTES)[0, 1:]
    assert cifar10.train.inputs[0, 1, 2, 3] == first[1024 + 2 * 32 + 3]
    assert torch.equal(cifar10.train.inputs[0].flatten(), first)
    assert torch.equal(cifar10.test.inputs[0].flatten(), random_bytes(12, RECORD_BYTES)[0, 1:] // 6)


@pytest.mark.parametrize("change_bytes", [-1, 1, -RECORD_BYTES])
def test_cifar10_wrong_length_is_refused(tmp_path: Path, change_bytes: int) -> None:
    write_cifar10(tmp_path, records_per_file=12)
    path = tmp_path / CIFAR10_FILES[3]
    actual = 12 * RECORD_BYTES + change_bytes
    path.write_bytes((path.read_bytes() + b"\0")[:actual])
    with pytest.raises(DataError) as error:
        load_cifar10(tmp_path, records_per_file=12)
    check_one_line(error, str(path), f"{12 * RECORD_BYTES} bytes", f"got {actual}")


def test_cifar10_by_name_wants_the_official_length(tmp_path: Path) -> None:
    write_cifar10(tmp_path, records_per_file=1)
    with pytest.raises(DataError, match="expected 30730000 bytes"):
        load_dataset("cifar10", tmp_path)


def test_cifar10_label_out_of_range_is_refused(tmp_path: Path) -> None:
    write_cifar10(tmp_path, records_per_file=12)
    path = tmp_path / CIFAR10_FILES[5]
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DataError) as error:
        load_cifar10(tmp_path, records_per_file=12)
    check_one_line(error, str(path), "labels 0 to 9", "got 10")

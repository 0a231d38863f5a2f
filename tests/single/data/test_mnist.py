"""The parser of MNIST's files: right ones read, damaged ones refused."""

import gzip
import struct
from pathlib import Path

import pytest
import torch

from knet_hvd.data import load_dataset
from knet_hvd.data.mnist import MNIST_FILES
from knet_hvd.errors import DataError


def idx(values: torch.Tensor) -> bytes:
    """Return the IDX file of a uint8 tensor."""
    header = struct.pack(f">4B{values.dim()}I", 0, 0, 8, values.dim(), *values.shape)
    return header + bytes(values.flatten().tolist())


def random_bytes(*shape: int) -> torch.Tensor:
    """Return the same random uint8 values at each call."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture
def mnist_dir(tmp_path: Path) -> Path:
    """Write a small data set in MNIST's files: 20 and 10 images."""
    for name in MNIST_FILES:
        count = 20 if name.startswith("train") else 10
        labels = torch.arange(count, dtype=torch.uint8) % 10
        values = random_bytes(count, 28, 28) if "images" in name else labels
        (tmp_path / name).write_bytes(idx(values))
    return tmp_path


def check_one_line(error: pytest.ExceptionInfo[DataError], *parts: str) -> None:
    """Check that a message is one line and names all parts."""
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_mnist_reads_what_was_written(mnist_dir: Path) -> None:
    mnist = load_dataset("mnist", mnist_dir)
    assert mnist.in_shape == (1, 28, 28)
    assert torch.equal(mnist.train.inputs[:, 0], random_bytes(20, 28, 28))
    assert mnist.test.targets.tolist() == list(range(10))
    assert mnist.train.targets.dtype == torch.int64


@pytest.mark.parametrize("folder", ["MNIST/raw", "raw"])
def test_mnist_reads_the_folder_of_torchvision(mnist_dir: Path, folder: str) -> None:
    above = mnist_dir / folder
    above.mkdir(parents=True)
    for name in MNIST_FILES:
        (mnist_dir / name).rename(above / name)
    assert len(load_dataset("mnist", mnist_dir).train.inputs) == 20


@pytest.mark.parametrize("zipped", [False, True])
def test_mnist_reads_file_names_with_dots(mnist_dir: Path, zipped: bool) -> None:
    for name in MNIST_FILES:
        file = mnist_dir / name
        target = mnist_dir / name.replace("-idx", ".idx")
        if zipped:
            target.with_name(f"{target.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
        else:
            file.rename(target)
    assert len(load_dataset("mnist", mnist_dir).train.inputs) == 20


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_a_message_names_what_is_there_instead(name: str, tmp_path: Path) -> None:
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError) as error:
        load_dataset(name, tmp_path)
    check_one_line(error, "is missing in", f"{tmp_path} holds cifar-10-batches-py, notes.txt.")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
@pytest.mark.parametrize("path", ["x" * 5000, "/".join(["x" * 100] * 100)])
def test_a_path_that_is_too_long_is_one_line(name: str, path: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load_dataset(name, tmp_path / path)
    check_one_line(error, "--data-dir")


def test_mnist_reads_gzipped_files_too(mnist_dir: Path) -> None:
    plain = load_dataset("mnist", mnist_dir)
    for name in MNIST_FILES:
        content = (mnist_dir / name).read_bytes()
        (mnist_dir / f"{name}.gz").write_bytes(gzip.compress(content))
        (mnist_dir / name).unlink()
    zipped = load_dataset("mnist", mnist_dir)
    assert torch.equal(plain.train.inputs, zipped.train.inputs)
    assert torch.equal(plain.test.targets, zipped.test.targets)


@pytest.mark.parametrize("cut", [0, 3, 10, 15, 100, 20 * 784 + 15])
def test_mnist_truncated_file_is_refused(mnist_dir: Path, cut: int) -> None:
    path = mnist_dir / MNIST_FILES[0]
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError) as error:
        load_dataset("mnist", mnist_dir)
    expected, actual = (16, cut) if cut < 16 else (20 * 784, cut - 16)
    check_one_line(error, str(path), f"{expected} bytes", f"got {actual}", "again")


def test_mnist_overlong_file_is_refused(mnist_dir: Path) -> None:
    path = mnist_dir / MNIST_FILES[2]
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError) as error:
        load_dataset("mnist", mnist_dir)
    check_one_line(error, str(path), "7840 bytes", "got more")


@pytest.mark.parametrize("keep", [5, 40, -1])
def test_mnist_truncated_gzip_is_refused(mnist_dir: Path, keep: int) -> None:
    path = mnist_dir / MNIST_FILES[0]
    zipped = path.with_name(path.name + ".gz")
    zipped.write_bytes(gzip.compress(path.read_bytes())[:keep])
    path.unlink()
    with pytest.raises(DataError) as error:
        load_dataset("mnist", mnist_dir)
    check_one_line(error, str(zipped), "cannot be read")


def test_mnist_gz_name_on_a_plain_file_is_refused(mnist_dir: Path) -> None:
    path = mnist_dir / MNIST_FILES[1]
    path.rename(path.with_name(path.name + ".gz"))
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("mnist", mnist_dir)


def test_mnist_corrupt_gzip_is_refused(mnist_dir: Path) -> None:
    path = mnist_dir / MNIST_FILES[0]
    content = bytearray(gzip.compress(path.read_bytes()))
    content[len(content) // 2] ^= 0xFF
    path.with_name(path.name + ".gz").write_bytes(content)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        load_dataset("mnist", mnist_dir)


def test_mnist_swapped_files_are_refused(mnist_dir: Path) -> None:
    images, labels = (mnist_dir / name for name in MNIST_FILES[:2])
    labels.write_bytes(images.read_bytes())
    with pytest.raises(DataError) as error:
        load_dataset("mnist", mnist_dir)
    check_one_line(error, str(labels), "0x00000801", "0x00000803")


def test_mnist_counts_must_agree(mnist_dir: Path) -> None:
    labels = mnist_dir / MNIST_FILES[1]
    labels.write_bytes(idx(torch.zeros(19, dtype=torch.uint8)))
    with pytest.raises(DataError) as error:
        load_dataset("mnist", mnist_dir)
    check_one_line(error, str(labels), "expected 20 labels", "got 19")


def test_mnist_label_out_of_range_is_refused(mnist_dir: Path) -> None:
    labels = mnist_dir / MNIST_FILES[3]
    labels.write_bytes(idx(torch.full((10,), 10, dtype=torch.uint8)))
    with pytest.raises(DataError) as error:
        load_dataset("mnist", mnist_dir)
    check_one_line(error, str(labels), "labels 0 to 9", "got 10")


@pytest.mark.parametrize("dims", [(0, 28, 28), (2**32 - 1,) * 3])
def test_mnist_absurd_header_is_refused(mnist_dir: Path, dims: tuple[int, int, int]) -> None:
    path = mnist_dir / MNIST_FILES[0]
    path.write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *dims) + bytes(100))
    with pytest.raises(DataError) as error:
        load_dataset("mnist", mnist_dir)
    check_one_line(error, str(path), str(dims[0]))


def test_mnist_other_image_size_is_refused(mnist_dir: Path) -> None:
    path = mnist_dir / MNIST_FILES[0]
    path.write_bytes(idx(random_bytes(20, 27, 28)))
    with pytest.raises(DataError, match="28x28 pixels, got 27x28"):
        load_dataset("mnist", mnist_dir)

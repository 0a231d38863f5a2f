"""Data sets by name, normalization, and the digits."""

from pathlib import Path

import pytest
import torch

from knet_hvd.data import ImageDataset, load_dataset
from knet_hvd.data.cifar10 import CIFAR10_FILES
from knet_hvd.data.mnist import MNIST_FILES
from knet_hvd.data.settings import ImageSettings
from knet_hvd.errors import DataError


def random_bytes(*shape: int) -> torch.Tensor:
    """Return the same random uint8 values at each call."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def test_digits_split_is_complete_stratified_and_fixed() -> None:
    digits, again = load_dataset("digits"), load_dataset("digits")
    assert digits.train.inputs.shape == (1437, 1, 8, 8)
    assert digits.test.inputs.shape == (360, 1, 8, 8)
    assert torch.equal(digits.train.inputs, again.train.inputs)
    assert torch.equal(digits.test.targets, again.test.targets)
    train, test = digits.train.targets.bincount(), digits.test.targets.bincount()
    assert len(train) == len(test) == digits.num_classes == 10
    assert ((test - (train + test) * 360 / 1797).abs() < 1).all()


def test_digits_split_is_that_of_the_recorded_figures() -> None:
    # A new split would make all recorded accuracies incomparable.
    digits = load_dataset("digits")
    assert digits.test.targets[:12].tolist() == [6, 1, 9, 3, 0, 8, 1, 4, 2, 6, 0, 5]
    assert int(digits.test.inputs.long().sum()) == 1_789_925


def test_digits_are_the_images_of_scikit_learn() -> None:
    from sklearn import datasets

    grey, labels = datasets.load_digits(return_X_y=True)
    digits = load_dataset("digits")
    images = torch.cat([digits.train.inputs, digits.test.inputs]).flatten(1)
    ours = torch.cat([digits.train.targets, digits.test.targets])
    assert images.max() == 255
    restored = (images.double() * 16 / 255).round().tolist()
    found = sorted((*row, int(k)) for row, k in zip(restored, ours, strict=True))
    expected = sorted((*row, int(k)) for row, k in zip(grey, labels, strict=True))
    assert found == expected


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_files_are_named(name: str, tmp_path: Path) -> None:
    files = {"mnist": MNIST_FILES, "cifar10": CIFAR10_FILES}[name]
    for data_dir in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError) as error:
            load_dataset(name, data_dir)
        message = str(error.value)
        assert "\n" not in message
        assert all(part in message for part in ("--data-dir", *files))


def test_unknown_data_set_is_refused() -> None:
    with pytest.raises(ValueError, match="digits, cifar10, mnist, text, or name a function"):
        load_dataset("imagenet")


def small_dataset() -> ImageDataset:
    """Return a data set of random images with two channels."""
    images, labels = random_bytes(30, 2, 5, 5), torch.arange(30) % 3
    images[:, 1] //= 2
    return ImageDataset((images, labels), (images[:6], labels[:6]), 3)


def test_normalize_gives_zero_mean_and_unit_deviation() -> None:
    dataset = small_dataset()
    normal = dataset.normalize(dataset.train.inputs)
    assert normal.dtype == torch.float32
    torch.testing.assert_close(normal.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    deviation = normal.std((0, 2, 3), unbiased=False)
    torch.testing.assert_close(deviation, torch.ones(2), atol=1e-5, rtol=0)


def test_normalize_to_the_unit_range_only_scales() -> None:
    dataset = small_dataset()
    dataset.configure(ImageSettings(inputs="unit"))
    unit = dataset.normalize(dataset.train.inputs)
    assert torch.equal(unit, dataset.train.inputs.float() / 255)


def test_normalize_survives_a_constant_channel() -> None:
    images, labels = torch.full((4, 1, 2, 2), 9, dtype=torch.uint8), torch.arange(4)
    dataset = ImageDataset((images, labels), (images, labels), 4)
    normal = dataset.normalize(images)
    torch.testing.assert_close(normal, torch.zeros_like(normal), atol=1e-6, rtol=0)


def test_normalize_refuses_floats_and_other_channels() -> None:
    dataset = small_dataset()
    with pytest.raises(TypeError, match="uint8"):
        dataset.normalize(dataset.train.inputs.float())
    with pytest.raises(ValueError, match=r"\[n, 2, h, w\]"):
        dataset.normalize(dataset.train.inputs[:, :1])


def test_a_data_set_refuses_labels_out_of_range() -> None:
    images = random_bytes(3, 1, 2, 2)
    split = (images, torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="0 to 1, got 0 to 2"):
        ImageDataset(split, split, num_classes=2)

"""The handwritten digits that come with scikit-learn: they need no file.

Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits" (UCI
Machine Learning Repository, 1998), of which scikit-learn embeds the test part:
1,797 images of 8x8 pixels with 17 gray levels.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from knet_hvd.data.images import ImageDataset
from knet_hvd.errors import DataError

NUM_TEST_IMAGES = 360
_SPLIT_SEED = 20170524


def load_digits(data_dir: Path | None = None) -> ImageDataset:
    """Load the digits in a fixed, stratified split (Alpaydin and Kaynak 1998).

    Gray levels 0 to 16 are scaled to 0 to 255. The split is the same on every
    machine, and each class has its share of both parts within one image.

    Args:
        data_dir: Not needed.

    Returns:
        1,437 training and 360 test images, uint8 [n, 1, 8, 8], in 10 classes.

    Raises:
        DataError: scikit-learn is not installed.
    """
    table = _read_table()
    grey, labels = table[:, :-1], table[:, -1].astype(np.int64)
    images = np.rint(grey * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    train, test = _stratified_split(labels, NUM_TEST_IMAGES)
    splits = [
        (torch.from_numpy(images[rows]), torch.from_numpy(labels[rows])) for rows in (train, test)
    ]
    return ImageDataset(splits[0], splits[1], num_classes=10)


def _read_table() -> NDArray[np.float64]:
    """Return a row for each image: 64 gray levels and the label.

    scikit-learn's own function reads the same file, but importing it takes longer than
    all else here: 0.7 s of each rank's start, for SciPy's statistics.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError(
            "data set 'digits' comes with scikit-learn, which is not installed: "
            "pip install scikit-learn"
        )
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.exists():
        return np.loadtxt(file, delimiter=",")
    from sklearn import datasets  # a version that keeps the file elsewhere

    images, labels = datasets.load_digits(return_X_y=True)
    return np.column_stack((images, labels))


def _stratified_split(
    labels: NDArray[np.int64], num_test: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the shuffled rows of the training and of the test part."""
    # RandomState, because numpy guarantees its stream for all versions: ranks
    # on unlike machines must agree on what is a test image.
    random = np.random.RandomState(_SPLIT_SEED)
    order = random.permutation(len(labels))
    # Stable sorting by class, then taking rows at equal distances, gives each
    # class its share rounded up or down.
    by_class = order[np.argsort(labels[order], kind="stable")]
    picks = (np.arange(num_test) * len(labels)) // num_test
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[by_class[picks]] = True
    return order[~is_test[order]], order[is_test[order]]

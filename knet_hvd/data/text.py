"""A text, to be predicted character by character.

Without a file it is the documentation of the Python language that every Python carries
(`pydoc_data.topics`): real English, about 465,000 characters in Python 3.11. Another
version of Python has another edition, and so other figures.
"""

from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from knet_hvd.data.dataset import Dataset
from knet_hvd.errors import DataError

WINDOW = 64
_TEST_PART = 0.1


def load_text(data_dir: Path | None = None, *, window: int = WINDOW) -> Dataset:
    """Load a text as sequences of characters, each with the characters that follow.

    The last tenth of the text is the test split. Both splits are cut into windows that do
    not overlap; what is left over at the end of a split is dropped.

    Args:
        data_dir: A text file, or a folder whose `.txt` files are read in the order of
            their names, in UTF-8; the embedded text if not given.
        window: Characters of a sequence.

    Returns:
        Inputs int64 [n, window], the numbers of the characters in the vocabulary of the
        whole text, and targets int64 [n, window], those of the characters after them.

    Raises:
        DataError: A file is missing, no text, or too short for a window.
        ValueError: The window is below 1.
    """
    if window < 1:
        raise ValueError(f"window: expected at least 1, got {window}")
    text = read_text(data_dir)
    num_test = int(len(text) * _TEST_PART)
    if num_test < window + 1:
        raise DataError(
            f"data set 'text': expected {int((window + 1) / _TEST_PART)} characters or more "
            f"for windows of {window}, got {len(text)}"
        )
    ids = encode(text, vocabulary(text))
    train, test = ids[:-num_test], ids[-num_test:]
    return Dataset(
        _windows(train, window), _windows(test, window), num_classes=len(vocabulary(text))
    )


def vocabulary(text: str) -> str:
    """Return the characters of a text, each once, in the order of their numbers."""
    return "".join(sorted(set(text)))


def encode(text: str, characters: str) -> Tensor:
    """Return the number of each character of a text, int64 [len(text)].

    Args:
        text: All its characters are in the vocabulary.
        characters: The vocabulary.
    """
    table, points = (
        np.frombuffer(each.encode("utf-32-le", "surrogatepass"), dtype="<u4")
        for each in (characters, text)
    )
    return torch.from_numpy(np.searchsorted(table, points).astype(np.int64))


def read_text(data_dir: Path | None = None) -> str:
    """Return the text that `load_text` takes.

    Raises:
        DataError: A file is missing, or no text.
    """
    if data_dir is None:
        return _embedded()
    try:
        paths = sorted(data_dir.glob("*.txt")) if data_dir.is_dir() else [data_dir]
        text = "".join(path.read_text(encoding="utf-8-sig") for path in paths)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data set 'text': {str(data_dir)[:200]} is no text: {error}") from error
    if not paths:
        raise DataError(f"data set 'text': there is no .txt file in {str(data_dir)[:200]}")
    return text


def _embedded() -> str:
    try:
        topics: dict[str, str] = import_module("pydoc_data.topics").topics
    except ImportError as error:
        raise DataError(
            f"data set 'text': this Python carries no documentation ({error}): name a text "
            "file with --data-dir"
        ) from error
    return "".join(topics[name] for name in sorted(topics))


def _windows(ids: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Return inputs and targets [n, window], views of the characters [m]."""
    return ids[:-1].unfold(0, window, window), ids[1:].unfold(0, window, window)

"""Text: characters as numbers, windows, and a split by position."""

from pathlib import Path

import pytest
import torch

from knet_hvd.data import Dataset, accuracy, cross_entropy
from knet_hvd.data.text import encode, load_text, read_text, vocabulary
from knet_hvd.errors import DataError

TEXT = "the quick brown fox jumps over the lazy dog.\n" * 30


def decoded(dataset_rows: torch.Tensor, text: str) -> list[str]:
    characters = vocabulary(text)
    return ["".join(characters[number] for number in row) for row in dataset_rows.tolist()]


def rows(split: object, name: str) -> torch.Tensor:
    values = getattr(split, name)
    return torch.as_tensor(values[torch.arange(len(values))])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fox.txt"
    path.write_text(TEXT)
    return path


def test_the_embedded_text_is_english_and_the_same_each_time() -> None:
    text = read_text()
    assert text == read_text()
    assert len(text) > 300_000
    assert " the " in text
    assert "statement" in text
    first, again = load_text(), load_text()
    assert torch.equal(rows(first.train, "inputs"), rows(again.train, "inputs"))
    assert first.in_shape == (64,)
    assert first.num_classes == len(set(text))


def test_windows_are_the_text_in_order_and_targets_follow_by_one(file: Path) -> None:
    dataset = load_text(file, window=10)
    num_train = len(TEXT) - len(TEXT) // 10
    inputs, targets = (decoded(rows(dataset.train, name), TEXT) for name in ("inputs", "targets"))
    assert "".join(inputs) == TEXT[: 10 * len(inputs)]
    assert "".join(targets) == TEXT[1 : 1 + 10 * len(targets)]
    assert len(inputs) == (num_train - 1) // 10


def test_the_splits_are_disjoint_parts_of_the_text(file: Path) -> None:
    dataset = load_text(file, window=10)
    num_test = len(TEXT) // 10
    start = len(TEXT) - num_test
    tests = "".join(decoded(rows(dataset.test, "inputs"), TEXT))
    assert tests == TEXT[start : start + len(tests)]
    last_target = 1 + 10 * len(dataset.train)
    assert last_target <= start, "a training target lies in the test split"
    assert len(dataset.test) == (num_test - 1) // 10


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name, text in (("b.txt", "second"), ("a.txt", "first "), ("c.md", "not this")):
        (tmp_path / name).write_text(text)
    assert read_text(tmp_path) == "first second"


def test_characters_beyond_ascii_have_numbers_too() -> None:
    text = "Zürich, 東京 and 😀"
    ids = encode(text, vocabulary(text))
    assert "".join(vocabulary(text)[number] for number in ids) == text
    assert int(ids.max()) == len(set(text)) - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is no text"),
        (b"too short", "expected 650 characters or more for windows of 64, got 9"),
        (None, "is no text"),
    ],
)
def test_what_is_no_text_is_told(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_text(path)
    assert "\n" not in str(error.value)


def test_a_folder_without_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no \.txt file in"):
        load_text(tmp_path)


def test_loss_and_accuracy_are_over_all_positions() -> None:
    logits = torch.full((2, 3, 4), -20.0)
    targets = torch.tensor([[0, 1, 2], [3, 3, 3]])
    logits.scatter_(2, targets[..., None], 20.0)
    assert float(cross_entropy(logits, targets)) == pytest.approx(0, abs=1e-6)
    assert accuracy(logits, targets).tolist() == [1, 1]
    targets[0, 0] = 3
    assert float(cross_entropy(logits, targets)) == pytest.approx(40 / 6)
    assert accuracy(logits, targets).tolist() == [pytest.approx(2 / 3), 1]


@pytest.mark.parametrize(
    ("targets", "num_classes", "message"),
    [
        (torch.tensor([0, 1]), None, "train: expected as many targets as inputs, .* got 3 .* 2"),
        (torch.tensor([0, 1, 2]), 2, "train: expected targets 0 to 1, got 0 to 2"),
        (torch.tensor([0, -1, 2]), 3, "train: expected targets 0 to 2, got -1 to 2"),
    ],
)
def test_targets_that_do_not_fit(
    targets: torch.Tensor, num_classes: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Dataset(
            (torch.zeros(3, 2), targets),
            (torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)),
            num_classes=num_classes,
        )

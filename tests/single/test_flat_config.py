"""Errors, flat configurations and JSON files."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from knet_hvd.errors import DataError, KnetError, RankMismatchError
from knet_hvd.files import write_json_atomic
from knet_hvd.flat_config import to_flat_dict


@dataclasses.dataclass(frozen=True)
class Inner:
    """A nested configuration."""

    lr: float = 0.1
    steps: tuple[int, ...] = (3, 5)


@dataclasses.dataclass(frozen=True)
class Outer:
    """A configuration."""

    name: str = "x"
    use_clip: bool = True
    logdir: Path | None = None
    data_dir: Path = Path("a/b")
    optimizer: Inner = Inner()


def test_flat_dict_names_nested_fields_with_dots() -> None:
    assert to_flat_dict(Outer()) == {
        "name": "x",
        "use_clip": True,
        "logdir": "none",
        "data_dir": str(Path("a/b")),
        "optimizer.lr": 0.1,
        "optimizer.steps": "3,5",
    }
    assert list(to_flat_dict(Inner())) == ["lr", "steps"]


def test_flat_dict_refuses_mistakes() -> None:
    @dataclasses.dataclass(frozen=True)
    class Bad:
        inner: object

    with pytest.raises(TypeError, match="dataclass instance, got 'Outer'"):
        to_flat_dict(Outer)
    with pytest.raises(TypeError, match="dataclass instance, got 'dict'"):
        to_flat_dict({})
    with pytest.raises(TypeError, match=r"'inner' must be .* got 'set'"):
        to_flat_dict(Bad({1}))


def test_json_is_read_back(tmp_path: Path) -> None:
    path, content = tmp_path / "result.json", {"a": [1, 2.5, None], "b": "text"}
    write_json_atomic(path, {"old": 1})
    write_json_atomic(path, content)
    assert json.loads(path.read_text()) == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "error"), [({"a": {1}}, TypeError), ({"a": float("nan")}, ValueError)]
)
def test_json_that_cannot_be_expressed_leaves_the_old_file(
    tmp_path: Path, content: object, error: type[Exception]
) -> None:
    path = tmp_path / "result.json"
    write_json_atomic(path, {"old": 1})
    with pytest.raises(error):
        write_json_atomic(path, content)
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "result.json"
    write_json_atomic(path, {"old": 1})
    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_json_atomic(path, {"new": 1})
    assert json.loads(path.read_text()) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_run_time_errors_are_one_family() -> None:
    assert issubclass(KnetError, RuntimeError)
    for kind in (DataError, RankMismatchError):
        assert issubclass(kind, KnetError)

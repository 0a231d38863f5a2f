"""Checkpoint folders that somebody else could write to: nothing is followed, nothing hangs."""

import json
import os
import resource
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from knet_hvd.checkpoint import (
    CheckpointConfig,
    CheckpointStore,
    DamagedCheckpointError,
    FolderLock,
    Manifest,
    load_latest,
    manifest,
    open_store,
    read_holder,
)
from knet_hvd.errors import CheckpointError
from knet_hvd.training.pipeline.resume import saved_plan
from knet_hvd.training.state.resume_point import ResumePoint
from tests.single.checkpoint.thread_ranks import ThreadRanks, run_on_ranks

STEP = 5


def write_one(folder: Path, **details: Any) -> CheckpointStore:
    folder.mkdir(exist_ok=True)
    store = CheckpointStore(folder)
    records = tuple(store.write_shard(STEP, index, {"x": index}) for index in range(2))
    store.commit(
        Manifest(kind="test", step=STEP, shards=records, configuration={}, details=details)
    )
    return store


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def fifo(path: Path, target: Path) -> None:
    os.mkfifo(path)


def device(path: Path, target: Path) -> None:
    path.symlink_to("/dev/zero")


def huge(path: Path, target: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


SPECIAL: tuple[Callable[[Path, Path], None], ...] = (link, fifo, device, huge)


def limited(function: Callable[[], None]) -> None:
    """Call a function with 4 GB of memory at most and a time limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, hard))
    thread = threading.Thread(target=function, daemon=True)
    try:
        thread.start()
        thread.join(30)
        assert not thread.is_alive(), "it hangs"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@pytest.mark.parametrize("name", ["manifest.json", "shard-00001.safetensors"])
@pytest.mark.parametrize("make", SPECIAL)
def test_special_files_are_damage(tmp_path: Path, name: str, make: Any) -> None:
    store = write_one(tmp_path / "folder")
    path = store.path(STEP) / name
    kept = tmp_path / "kept"
    path.rename(kept)
    make(path, kept)
    raised: list[BaseException] = []

    def read() -> None:
        try:
            found = store.read_manifest(STEP)
            store.read_shard(found, 1)
        except BaseException as error:
            raised.append(error)

    limited(read)
    assert [type(error) for error in raised] == [DamagedCheckpointError], raised
    expected = "expected .* bytes|longer than" if make is huge else "not a regular file"
    with pytest.raises(DamagedCheckpointError, match=expected):
        raise raised[0]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_as_lock_is_not_followed(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "precious"
    if exists:
        target.write_text("precious")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / ".lock").symlink_to(target)
    with pytest.raises(OSError, match="not a regular file"):
        FolderLock(folder, "me")
    with pytest.raises(OSError, match="not a regular file"):
        read_holder(folder)
    assert target.exists() == exists
    assert not exists or target.read_text() == "precious"


@pytest.mark.parametrize("make", [link, fifo, device])
def test_all_ranks_refuse_a_special_file_as_lock(tmp_path: Path, make: Any) -> None:
    make(tmp_path / ".lock", tmp_path / "none")
    config = CheckpointConfig(checkpoint_dir=tmp_path)
    raised = run_on_ranks(lambda ranks: open_all(config, ranks), 2)
    for error in raised:
        assert type(error) is CheckpointError
        assert "cannot be written (not a regular file): choose another" in str(error)


def open_all(config: CheckpointConfig, ranks: ThreadRanks) -> None:
    open_store(config, ranks)


def test_a_lock_that_is_no_text_names_nobody(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"\xff\xfe")
    assert read_holder(tmp_path) == "��"


def test_a_link_as_half_written_checkpoint_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "step-000000005.partial").symlink_to(elsewhere)
    store = CheckpointStore(folder)
    with pytest.raises(NotADirectoryError, match="not a folder of its own"):
        store.write_shard(5, 0, {"x": 1})
    store.clean()
    assert list(folder.iterdir()) == []
    assert [entry.name for entry in elsewhere.iterdir()] == ["precious"]


def test_digits_of_other_scripts_are_no_steps(tmp_path: Path) -> None:
    (tmp_path / ("step-" + "".join(map(chr, range(0x0660, 0x0669))))).mkdir()
    (tmp_path / "step-000000007").mkdir()
    assert CheckpointStore(tmp_path).steps() == [7]


DEEP: Any = [0]
for _ in range(500):
    DEEP = [DEEP]
FORGED = [
    *({"configuration": value} for value in ([], None, 3, {"a": None}, {"a": [1]}, DEEP)),
    *({"details": value} for value in ([], None, {"epoch": None}, {"epoch": {}})),
    *({"versions": value} for value in ([], None, 3, {"torch": 2}, {"torch": None})),
    *({"step": value} for value in (5.0, "5", None, True, -5, [5])),
    *({"kind": value} for value in (None, 3, ["test"])),
    *({"shards": value} for value in (None, [], {}, [3], [{}], "x", 7)),
    {"shards": [{"sha256": 3, "num_bytes": 3}]},
    {"shards": [{"sha256": "x", "num_bytes": -1}]},
    {"shards": [{"sha256": "x", "num_bytes": 1.5}]},
    {"shards": [{"sha256": "x", "num_bytes": 1, "more": 1}]},
    {"more": 1},
    {"format": None},
]


@pytest.mark.parametrize("change", FORGED, ids=[json.dumps(each)[:40] for each in FORGED])
def test_a_forged_manifest_is_damage_on_all_ranks(tmp_path: Path, change: dict[str, Any]) -> None:
    store = write_one(tmp_path)
    path = store.path(STEP) / "manifest.json"
    body = json.loads(path.read_bytes())["manifest"] | change
    path.write_bytes(manifest._render(body))
    raised = run_on_ranks(lambda ranks: load_all(tmp_path, ranks), 2)
    for error in raised:
        assert type(error) is CheckpointError, repr(error)
        assert "is good: " in str(error)


def load_all(folder: Path, ranks: ThreadRanks) -> None:
    load_latest(CheckpointStore(folder), "test", lambda found: [ranks.rank], ranks)


DETAILS: list[dict[str, Any]] = [
    {},
    {"epoch": float("inf"), "batch": 1},
    {"epoch": "1", "batch": 1},
    {"epoch": 1, "batch": True},
]


@pytest.mark.parametrize("details", DETAILS)
def test_details_of_other_types_are_refused(tmp_path: Path, details: dict[str, Any]) -> None:
    found = write_one(tmp_path, **details).read_manifest(STEP)
    with pytest.raises(CheckpointError, match=r"the checkpoint of step 5 says (epoch|batch)"):
        ResumePoint.of(found)


PLANS = [("[1]", "[0]"), ("[1]", "[0, 0]"), ("x", "[0, 1]"), ("[1.5]", "[0, 1]"), ("{}", "[0, 1]")]


@pytest.mark.parametrize(("cuts", "order"), PLANS)
def test_plans_that_are_none_are_refused(tmp_path: Path, cuts: str, order: str) -> None:
    found = write_one(tmp_path, cuts=cuts, order=order).read_manifest(STEP)
    with pytest.raises(CheckpointError, match="the checkpoint"):
        saved_plan(found)

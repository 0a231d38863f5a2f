"""Checkpoints hold what they were given, and are there whole or not at all."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from knet_hvd.checkpoint import (
    BackgroundTask,
    CheckpointConfig,
    CheckpointStore,
    FolderLock,
    Manifest,
    StopSignals,
    check_same_configuration,
    snapshot,
)
from knet_hvd.errors import CheckpointError

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    values = torch.randn(shape, generator=generator)
    return values.to(draw(st.sampled_from(DTYPES)))


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(
    PLAIN | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def commit(store: CheckpointStore, step: int, *trees: Any) -> Manifest:
    records = tuple(store.write_shard(step, i, tree) for i, tree in enumerate(trees))
    manifest = Manifest(kind="test", step=step, shards=records, configuration={})
    store.commit(manifest)
    return manifest


@given(TREES)
def test_what_is_read_is_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, tree: Any
) -> None:
    store = CheckpointStore(tmp_path_factory.mktemp("store"))
    manifest = commit(store, 7, tree)
    assert store.read_manifest(7) == manifest
    assert same(store.read_shard(manifest, 0), tree)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_an_optimizers_state_comes_back(optimizer: str, tmp_path: Path) -> None:
    model = nn.Linear(5, 3)
    make = {
        "sgd": lambda: torch.optim.SGD(model.parameters(), 0.1),
        "momentum": lambda: torch.optim.SGD(model.parameters(), 0.1, 0.9),
        "adam": lambda: torch.optim.Adam(model.parameters()),
    }[optimizer]
    used = make()
    model(torch.ones(2, 5)).sum().backward()
    used.step()
    store = CheckpointStore(tmp_path)
    manifest = commit(store, 1, snapshot(used.state_dict()))
    other = make()
    other.load_state_dict(store.read_shard(manifest, 0))
    assert same(other.state_dict(), used.state_dict())


def test_a_snapshot_does_not_change_with_the_model() -> None:
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    taken = snapshot({"model": model.state_dict(), "steps": [1]})
    before = {name: value.clone() for name, value in taken["model"].items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    for name, value in taken["model"].items():
        assert torch.equal(value, before[name])
        assert value.is_contiguous()


@pytest.mark.parametrize("value", [object(), {1.5: 2}, {None: 2}, {3}, b"bytes"])
def test_what_a_shard_cannot_hold(value: object, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="/content/x"):
        CheckpointStore(tmp_path).write_shard(1, 0, {"x": value})


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (5, 10, 15, 10**9 + 20):
        commit(store, step, {"step": step})
    assert store.steps() == [10**9 + 20, 15]
    assert {e.name for e in tmp_path.iterdir()} == {"step-000000015", "step-1000000020"}


def test_nothing_is_there_before_it_is_committed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    commit(store, 5, {"a": 1})
    store.write_shard(10, 0, {"a": 2})
    assert store.steps() == [5]
    store.clean()
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-000000005"]


def test_a_checkpoint_without_all_its_shards_is_not_committed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    record = store.write_shard(5, 0, {"a": 1})
    manifest = Manifest(kind="test", step=5, shards=(record, record), configuration={})
    with pytest.raises(FileNotFoundError):
        store.commit(manifest)
    assert store.steps() == []


def test_a_step_that_is_written_again_takes_the_place(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    commit(store, 5, {"a": 1})
    manifest = commit(store, 5, {"a": 2})
    assert store.read_shard(manifest, 0) == {"a": 2}
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_ones_are_set_aside_side_by_side(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    for _ in range(2):
        commit(store, 5, {"a": 1})
        store.set_aside(5)
    assert store.steps() == []
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_is_full_leaves_the_last_checkpoint_and_no_file(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    before = commit(store, 5, {"a": torch.zeros(10)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.write_shard(10, 0, {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "step-000000010.partial").iterdir()) == []
    assert store.steps() == [5]
    assert store.read_shard(before, 0)["a"].shape == (10,)


def test_a_folder_is_locked_for_one(tmp_path: Path) -> None:
    first = FolderLock(tmp_path, "the first job")
    with pytest.raises(CheckpointError, match=r"in use by another job \(the first job"):
        FolderLock(tmp_path, "the second job", timeout_s=0.1)
    first.release()
    FolderLock(tmp_path, "the second job", timeout_s=0.1).release()


def test_a_process_that_was_killed_leaves_no_lock(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from knet_hvd.checkpoint import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1]), 'child')\n"
        "print('locked', flush=True); time.sleep(100)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "locked\n"
    with pytest.raises(CheckpointError, match="child"):
        FolderLock(tmp_path, "parent", timeout_s=0.1)
    child.kill()
    child.wait()
    FolderLock(tmp_path, "parent").release()


def test_signals_are_remembered_and_given_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with StopSignals() as signals:
        assert signals.received == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == "SIGUSR1"
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_task_reports_how_it_ended() -> None:
    task = BackgroundTask()
    task.start(time.sleep, 0.2)
    assert task.is_busy
    task.wait(10.0)
    assert (task.is_busy, task.error) == (False, "")
    task.start(os.mkdir, "/dev/null/x")
    task.wait(10.0)
    assert task.error == "Not a directory"
    task.forget()
    assert task.error == ""
    task.close()


def test_settings_that_may_differ_and_settings_that_may_not() -> None:
    saved = {"model": "lenet", "lr": 0.1, "epochs": 3}
    check_same_configuration(saved, saved | {"epochs": 5}, {"epochs"})
    with pytest.raises(CheckpointError) as error:
        check_same_configuration(saved, {"model": "mlp", "lr": 0.2}, {"epochs"})
    assert "model: lenet there, mlp here; lr: 0.1 there, 0.2 here" in str(error.value)


@pytest.mark.parametrize("name", ["checkpoint_every", "keep_checkpoints"])
def test_settings_out_of_range(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        CheckpointConfig(**{name: 0})
    with pytest.raises(ValueError, match="checkpoint_dir"):
        CheckpointConfig(resume="must")

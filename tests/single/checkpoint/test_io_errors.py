"""An I/O error at any file operation of a job: one clear error on all ranks, nothing lost."""

import errno
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from knet_hvd.checkpoint import (
    AsyncCheckpointWriter,
    CheckpointConfig,
    CheckpointStore,
    Manifest,
    ShardRecord,
    StopSignals,
    load_latest,
    open_store,
)
from knet_hvd.errors import CheckpointError
from tests.single.checkpoint.thread_ranks import ThreadRanks, run_on_ranks

NUM_RANKS = 2
AUDITED = frozenset(
    (
        *("open", "fcntl.flock", "os.mkdir", "os.rename", "os.remove", "os.rmdir"),
        *("os.listdir", "os.scandir", "os.truncate"),
    )
)
CALLED = ("stat", "lstat", "fstat", "fsync")


class Fault:
    """Let the n-th file operation below a folder fail, whichever it is."""

    def __init__(self) -> None:
        self.folder = ""
        self.left = 0
        self.number = 0
        self.where = ""
        self._lock = threading.Lock()

    def arm(self, folder: Path, left: int, number: int) -> None:
        self.folder, self.left, self.number, self.where = str(folder), left, number, ""

    def meet(self, what: str, path: object) -> None:
        if not self.folder:
            return
        if isinstance(path, str | os.PathLike) and not os.fspath(path).startswith(self.folder):
            return
        with self._lock:
            self.left -= 1
            if self.left == 0:
                self.where = f"{what} {path}"
                raise OSError(self.number, os.strerror(self.number), str(path))


FAULT = Fault()


def audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in AUDITED and FAULT.folder:
        FAULT.meet(event, arguments[0])


sys.addaudithook(audit)  # for the rest of the process; it does nothing while nothing is armed


@pytest.fixture
def fault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fault]:
    for name in CALLED:
        original = getattr(os, name)

        def call(path: Any, *rest: Any, _name: str = name, _call: Any = original, **kw: Any) -> Any:
            FAULT.meet(_name, path)
            return _call(path, *rest, **kw)

        monkeypatch.setattr(os, name, call)
    yield FAULT
    FAULT.folder = ""


def describe(step: int, shards: tuple[ShardRecord, ...]) -> Manifest:
    return Manifest(kind="test", step=step, shards=shards, configuration={})


def capture(step: int) -> dict[str, Any]:
    return {"step": step, "w": torch.full((3,), float(step))}


def prepare(folder: Path) -> None:
    """Make a good checkpoint, a damaged one and a half-written one."""
    store = CheckpointStore(folder)
    for step in (1, 2):
        records = tuple(store.write_shard(step, i, capture(step)) for i in range(NUM_RANKS))
        store.commit(describe(step, records))
    with (store.path(2) / "shard-00001.safetensors").open("ab") as file:
        file.write(b"x")
    store.write_shard(3, 0, capture(3))


def train(config: CheckpointConfig, saved: list[int], ranks: ThreadRanks) -> None:
    """Continue from the latest checkpoint to the one of step 5, as a job does."""
    store, lock = open_store(config, ranks)
    try:
        before = load_latest(store, "test", lambda manifest: [ranks.rank], ranks)
        assert before is not None
        start = before.manifest.step
        assert before.shards[ranks.rank]["step"] == start
        writer = AsyncCheckpointWriter(
            store,
            ranks,
            StopSignals(()),
            every=1,
            capture=capture,
            describe=describe,
            last_step=start,
        )
        try:
            for step in range(start + 1, 6):
                writer.before_step()
                writer.after_step(step, is_last=step == 5)
            writer.finish(5)
        finally:
            if ranks.rank == 0 and writer.last_step is not None:
                saved.append(writer.last_step)
            writer.close()
    finally:
        if lock is not None:
            lock.release()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
def test_every_point(tmp_path: Path, fault: Fault, number: int) -> None:
    point, num_clean, num_survived = 0, 0, 0
    while True:
        point += 1
        folder = tmp_path / str(point)
        folder.mkdir()
        prepare(folder)
        config = CheckpointConfig(checkpoint_dir=folder, keep_checkpoints=1)
        saved: list[int] = [1]
        fault.arm(folder, point, number)
        raised = run_on_ranks(partial(train, config, saved), NUM_RANKS)
        where = f"point {point}, {fault.where}"
        fault.folder = ""
        if not fault.where:
            assert raised == [None, None]
            break
        if raised == [None, None]:
            num_survived += 1
        else:
            num_clean += 1
            assert all(type(error) is CheckpointError for error in raised), (where, raised)
            assert len({str(error) for error in raised}) == 1, (where, raised)
        latest = check_next_run(config, where)
        assert latest >= max(saved), where
    assert point > 100
    assert num_clean > 20
    assert num_survived > 20


def check_next_run(config: CheckpointConfig, where: str) -> int:
    """Return the step that the next run continues from, once the disk works again."""
    found: list[int] = []

    def resume(ranks: ThreadRanks) -> None:
        store, lock = open_store(config, ranks)
        saved = load_latest(store, "test", lambda manifest: [ranks.rank], ranks)
        assert saved is not None
        found.append(saved.manifest.step)
        if lock is not None:
            lock.release()

    raised = run_on_ranks(resume, NUM_RANKS)
    assert raised == [None, None], (where, raised)
    return found[0]

"""Altered checkpoints: every one is detected, none is loaded, none executes code."""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from knet_hvd.checkpoint import (
    CheckpointStore,
    DamagedCheckpointError,
    Manifest,
    ShardRecord,
    manifest,
)
from knet_hvd.errors import CheckpointError

NUM_SHARDS = 3
STEPS = (10, 20)
TRIALS = 1000


def make_tree(step: int, index: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step * 100 + index)
    return {
        "model": {f"w{index}": torch.randn(4, 5, generator=generator)},
        "optimizer": {"state": {0: {"step": torch.tensor(float(step))}}, "lr": 0.1},
    }


def make_manifest(step: int, records: tuple[ShardRecord, ...]) -> Manifest:
    return Manifest(kind="test", step=step, shards=records, configuration={"seed": 1, "lr": 0.1})


def write_all(folder: Path) -> CheckpointStore:
    store = CheckpointStore(folder)
    for step in STEPS:
        records = tuple(store.write_shard(step, i, make_tree(step, i)) for i in range(NUM_SHARDS))
        store.commit(make_manifest(step, records))
    return store


def read_all(store: CheckpointStore, step: int) -> list[Any]:
    found = store.read_manifest(step)
    return [store.read_shard(found, index) for index in range(len(found.shards))]


def flip_bit(folder: Path, random: Random) -> str:
    file = random.choice(sorted(folder.iterdir()))
    data = bytearray(file.read_bytes())
    position, bit = random.randrange(len(data)), random.randrange(8)
    data[position] ^= 1 << bit
    file.write_bytes(data)
    return f"bit {bit} of byte {position} of {file.name}"


def truncate(folder: Path, random: Random) -> str:
    file = random.choice(sorted(folder.iterdir()))
    size = random.randrange(file.stat().st_size)
    os.truncate(file, size)
    return f"{file.name} cut to {size} bytes"


def extend(folder: Path, random: Random) -> str:
    file = random.choice(sorted(folder.iterdir()))
    file.write_bytes(file.read_bytes() + random.randbytes(random.randrange(1, 9)))
    return f"{file.name} with more bytes"


def overwrite(folder: Path, random: Random) -> str:
    file = random.choice(sorted(folder.iterdir()))
    size = file.stat().st_size
    begin = random.randrange(size)
    count = random.randrange(1, size - begin + 1)
    data = bytearray(file.read_bytes())
    data[begin : begin + count] = bytes(255 - byte for byte in data[begin:][:count])
    file.write_bytes(data)
    return f"{count} bytes of {file.name} overwritten"


def swap_shards(folder: Path, random: Random) -> str:
    a, b = random.sample(sorted(folder.glob("shard-*")), 2)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)
    return f"{a.name} and {b.name} swapped"


def take_from_other_step(folder: Path, random: Random) -> str:
    file = random.choice(sorted(folder.iterdir()))
    file.write_bytes((folder.parent / "step-000000010" / file.name).read_bytes())
    return f"{file.name} of step 10"


def remove(folder: Path, random: Random) -> str:
    file = random.choice(sorted(folder.iterdir()))
    file.unlink()
    return f"{file.name} removed"


def replace_by_pickle(folder: Path, random: Random) -> str:
    file = random.choice(sorted(folder.iterdir()))
    file.write_bytes(bomb(folder))
    return f"{file.name} is a pickle"


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


def bomb(folder: Path) -> bytes:
    return pickle.dumps(Bomb(str(folder.parent / "EXECUTED")))


ALTERATIONS: tuple[Callable[[Path, Random], str], ...] = (
    *(flip_bit, flip_bit, flip_bit, truncate, truncate, extend, overwrite),
    *(swap_shards, take_from_other_step, remove, replace_by_pickle),
)


def is_detected(store: CheckpointStore) -> bool:
    try:
        read_all(store, 20)
    except DamagedCheckpointError as error:
        return "step-000000020" in str(error)
    return False


def test_a_thousand_alterations_are_all_detected(tmp_path: Path) -> None:
    random = Random(5)
    store = write_all(tmp_path)
    good = {file: file.read_bytes() for file in store.path(20).iterdir()}
    assert len(read_all(store, 20)) == NUM_SHARDS
    for trial in range(TRIALS):
        what = ALTERATIONS[trial % len(ALTERATIONS)](store.path(20), random)
        assert is_detected(store), f"trial {trial}: {what} was not detected"
        for file, data in good.items():
            file.write_bytes(data)
    assert not (tmp_path / "EXECUTED").exists()
    assert len(read_all(store, 20)) == NUM_SHARDS


def test_every_bit_of_a_manifest_counts(tmp_path: Path) -> None:
    store = write_all(tmp_path)
    data = (store.path(20) / "manifest.json").read_bytes()
    for bit in range(8 * len(data)):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DamagedCheckpointError):
            Manifest.from_bytes(bytes(altered))


def test_a_bomb_is_one(tmp_path: Path) -> None:
    pickle.loads(bomb(tmp_path / "step"))
    assert (tmp_path / "EXECUTED").exists()


def test_a_pickle_with_a_matching_hash_executes_nothing(tmp_path: Path) -> None:
    """Whoever can write a manifest can make any file match; it is still no code."""
    store = CheckpointStore(tmp_path)
    for step, data in enumerate((bomb(tmp_path / "x"), torch_bomb(tmp_path))):
        folder = store.path(step)
        folder.mkdir()
        (folder / "shard-00000.safetensors").write_bytes(data)
        record = ShardRecord(hashlib.sha256(data).hexdigest(), len(data))
        content = make_manifest(step, (record,)).to_bytes()
        (folder / "manifest.json").write_bytes(content)
        with pytest.raises(DamagedCheckpointError, match="not a shard of it"):
            read_all(store, step)
    assert not (tmp_path / "EXECUTED").exists()


def torch_bomb(folder: Path) -> bytes:
    file = folder / "bomb.pt"
    torch.save({"model": Bomb(str(folder / "EXECUTED"))}, file)
    return file.read_bytes()


def test_shards_that_were_swapped_with_their_hashes(tmp_path: Path) -> None:
    store = write_all(tmp_path)
    found = store.read_manifest(20)
    swap_shards(store.path(20), Random(0))
    files = sorted(store.path(20).glob("shard-*"))
    data = [file.read_bytes() for file in files]
    records = tuple(ShardRecord(hashlib.sha256(each).hexdigest(), len(each)) for each in data)
    assert records != found.shards
    content = make_manifest(20, records).to_bytes()
    (store.path(20) / "manifest.json").write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=r"it is shard \d of step 20"):
        read_all(store, 20)


def test_a_checkpoint_under_another_name(tmp_path: Path) -> None:
    store = write_all(tmp_path)
    shutil.copytree(store.path(10), store.path(30))
    with pytest.raises(DamagedCheckpointError, match="it is of step 10"):
        store.read_manifest(30)


def test_a_newer_format_is_not_taken_for_damage(tmp_path: Path) -> None:
    store = write_all(tmp_path)
    path = store.path(20) / "manifest.json"
    body = json.loads(path.read_bytes())["manifest"] | {"format_version": 2}
    path.write_bytes(manifest._render(body))
    with pytest.raises(CheckpointError, match="format version 2: this knet_hvd") as e:
        store.read_manifest(20)
    assert not isinstance(e.value, DamagedCheckpointError)

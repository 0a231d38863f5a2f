"""A model leaves a checkpoint as a file that needs nothing of this package."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from knet_hvd.checkpoint import CheckpointStore, Manifest
from knet_hvd.checkpoint.export import export, main
from knet_hvd.errors import CheckpointError

WEIGHT, BIAS = torch.randn(3, 4), torch.randn(3)


def write(folder: Path, *shards: dict[str, Any], step: int = 5) -> CheckpointStore:
    store = CheckpointStore(folder / "checkpoints")
    store.folder.mkdir(exist_ok=True)
    records = tuple(store.write_shard(step, i, tree) for i, tree in enumerate(shards))
    store.commit(Manifest(kind="any", step=step, shards=records, configuration={}))
    return store


def stages(folder: Path, **more: Any) -> CheckpointStore:
    """Write a checkpoint of two stages, one block each."""
    first = {"model": {"a.weight": WEIGHT}, "optimizer": {}, **more}
    return write(folder, first, {"model": {"b.bias": BIAS}})


@pytest.mark.parametrize("of", ["the folder", "the checkpoint"])
def test_the_shards_make_one_model(of: str, tmp_path: Path) -> None:
    store = stages(tmp_path)
    source = store.folder if of == "the folder" else store.path(5)
    out = tmp_path / "model.pt"
    assert main([str(source), str(out)]) == 0
    state = torch.load(out, weights_only=True)
    assert list(state) == ["a.weight", "b.bias"]
    assert torch.equal(state["a.weight"], WEIGHT)
    assert torch.equal(state["b.bias"], BIAS)


def test_the_file_loads_where_the_package_is_not(tmp_path: Path) -> None:
    store = stages(tmp_path)
    export(store.folder, tmp_path / "model.pt")
    code = (
        "import sys, torch; state = torch.load(sys.argv[1], weights_only=True); "
        "assert 'knet_hvd' not in sys.modules; print(len(state))"
    )
    line = [sys.executable, "-I", "-c", code, str(tmp_path / "model.pt")]
    result = subprocess.run(line, capture_output=True, text=True, check=True)
    assert result.stdout == "2\n"


def test_averages_take_the_place_of_parameters(tmp_path: Path) -> None:
    store = stages(tmp_path, average={"a.weight": WEIGHT + 1})
    export(store.folder, tmp_path / "model.pt", average=True)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert torch.equal(state["a.weight"], WEIGHT + 1)
    assert torch.equal(state["b.bias"], BIAS)


def test_what_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.pt"
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        export(tmp_path, out)
    store = stages(tmp_path)
    with pytest.raises(CheckpointError, match="no moving average"):
        export(store.folder, out, average=True)
    twice = {"model": {"a.weight": WEIGHT}}
    write(tmp_path, twice, twice, step=6)
    with pytest.raises(CheckpointError, match=r"a\.weight is there twice"):
        export(store.folder, out)
    (store.path(5) / "shard-00001.safetensors").write_bytes(b"?")
    assert main([str(store.path(5)), str(out)]) == 1
    assert "shard-00001.safetensors: expected" in capsys.readouterr().err
    assert not out.exists()
    assert sorted(e.name for e in tmp_path.iterdir()) == ["checkpoints"]

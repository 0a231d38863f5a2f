"""Tensors come back from a file with their values and layout."""

from pathlib import Path

import pytest
import torch

from knet_hvd.checkpoint import CheckpointStore, Manifest, snapshot
from knet_hvd.pipeline.packing import pack_tensor, unpack_tensor


def stored(tree: object, folder: Path) -> object:
    store = CheckpointStore(folder)
    record = store.write_shard(1, 0, snapshot(tree))
    store.commit(Manifest(kind="test", step=1, shards=(record,), configuration={}))
    return store.read_shard(store.read_manifest(1), 0)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 2, 5, 4),
        torch.randn(3, 2, 5, 4).contiguous(memory_format=torch.channels_last),
        torch.empty_like(torch.empty(3, 1, 5, 4), memory_format=torch.channels_last).normal_(),
        torch.randn(6, 4).t(),
        torch.arange(5),
        torch.tensor(2.5),
    ],
    ids=["images", "channels last", "one channel", "transposed", "targets", "scalar"],
)
def test_values_and_layout_are_kept(tensor: torch.Tensor, tmp_path: Path) -> None:
    back = unpack_tensor(stored(pack_tensor(tensor), tmp_path), torch.device("cpu"))
    assert torch.equal(back, tensor)
    assert back.dtype == tensor.dtype
    assert back.stride() == tensor.stride()

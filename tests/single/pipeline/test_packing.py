"""Batches that are under way come back from a file as they were."""

from pathlib import Path

import pytest
import torch

from knet_hvd.checkpoint import CheckpointStore, Manifest, snapshot
from knet_hvd.pipeline.runners.batch_state import pack, pack_batch, unpack, unpack_batch
from knet_hvd.pipeline.stage import Batch


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
    ids=["images", "channels last", "one channel", "transposed", "labels", "scalar"],
)
def test_values_and_layout_are_kept(tensor: torch.Tensor, tmp_path: Path) -> None:
    back = unpack(stored(pack(tensor), tmp_path))
    assert back is not None
    assert torch.equal(back, tensor)
    assert back.dtype == tensor.dtype
    assert back.stride() == tensor.stride()


@pytest.mark.parametrize("needs_gradient", [True, False])
def test_a_batch_is_kept(needs_gradient: bool, tmp_path: Path) -> None:
    inputs = torch.randn(2, 3).requires_grad_(needs_gradient)
    batch = Batch(7, 0, torch.tensor([1, 0]), 2, True, inputs, prediction=inputs * 2)
    tree = stored(pack_batch(batch), tmp_path)
    back = unpack_batch(tree, needs_gradient)
    assert (back.step, back.microbatch, back.num_samples, back.observed) == (7, 0, 2, 1)
    assert back.inputs is not None
    assert back.prediction is not None
    assert back.output is None
    assert back.inputs.requires_grad == needs_gradient
    assert torch.equal(back.inputs, inputs)
    assert torch.equal(back.prediction, inputs * 2)
    assert torch.equal(back.labels, batch.labels)

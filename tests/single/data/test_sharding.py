"""How ranks share out a training set."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from knet_hvd.data import ShardedBatches, augment


def random_bytes(*shape: int) -> torch.Tensor:
    """Return the same random uint8 values at each call."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def make_shards(count: int, batch_size: int, num_ranks: int, seed: int = 0) -> list[ShardedBatches]:
    """Return the shards of all ranks of a set whose labels are its indices."""
    images = torch.arange(count, dtype=torch.int64).to(torch.uint8).reshape(-1, 1, 1, 1)
    return [
        ShardedBatches(
            inputs=images,
            targets=torch.arange(count),
            batch_size=batch_size,
            rank=rank,
            num_ranks=num_ranks,
            seed=seed,
        )
        for rank in range(num_ranks)
    ]


shards = st.builds(
    lambda batch_size, num_ranks, more, seed: make_shards(
        batch_size * num_ranks + more, batch_size, num_ranks, seed
    ),
    st.integers(1, 9),
    st.integers(1, 6),
    st.integers(0, 100),
    st.integers(0, 2**32),
)


@settings(max_examples=60, deadline=None)
@given(shards=shards, epoch=st.integers(0, 1000))
def test_ranks_share_out_an_epoch_evenly_and_without_repeats(
    shards: list[ShardedBatches], epoch: int
) -> None:
    seen: list[int] = []
    for shard in shards:
        batches = list(shard.batches(epoch))
        assert len(batches) == len(shard) == len(shards[0])
        for images, labels in batches:
            assert labels.shape == (shard.batch_size,)
            assert torch.equal(images.flatten(), labels.to(torch.uint8))
            seen += labels.tolist()
    assert len(set(seen)) == len(seen)
    left_over = len(shards[0].targets) - len(seen)
    assert 0 <= left_over < shards[0].batch_size * len(shards)


@settings(max_examples=30, deadline=None)
@given(shards=shards, data=st.data())
def test_resuming_yields_the_tail_of_the_epoch(
    shards: list[ShardedBatches], data: st.DataObject
) -> None:
    shard = data.draw(st.sampled_from(shards))
    start = data.draw(st.integers(0, len(shard)))
    whole = [labels.tolist() for _, labels in shard.batches(3)]
    tail = [labels.tolist() for _, labels in shard.batches(3, start)]
    assert tail == whole[start:]


def test_a_step_sees_the_same_images_for_every_number_of_ranks() -> None:
    def steps(num_ranks: int) -> list[set[int]]:
        parts = make_shards(100, 12 // num_ranks, num_ranks)
        return [
            set().union(*(labels.tolist() for _, labels in step))
            for step in zip(*(part.batches(1) for part in parts), strict=True)
        ]

    assert steps(1) == steps(2) == steps(3)


def test_each_epoch_and_each_seed_has_its_own_order() -> None:
    shard, other = make_shards(50, 5, 1)[0], make_shards(50, 5, 1, seed=1)[0]
    orders = [shard.indices(0), shard.indices(1), other.indices(0)]
    assert torch.equal(shard.indices(0), orders[0])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(orders[i], orders[j])


def test_the_order_is_that_of_all_versions() -> None:
    # Ranks on unlike machines, and resumed runs, rely on this very order.
    assert make_shards(10, 10, 1, seed=7)[0].indices(2).tolist() == [[6, 0, 9, 3, 1, 4, 7, 5, 8, 2]]


def test_transform_is_resumable_and_differs_by_rank_and_epoch() -> None:
    def run(rank: int, epoch: int, start: int = 0) -> list[torch.Tensor]:
        shard = ShardedBatches(
            inputs=random_bytes(1, 1, 8, 8).expand(24, 1, 8, 8),
            targets=torch.zeros(24, dtype=torch.int64),
            batch_size=4,
            rank=rank,
            num_ranks=2,
            augment=augment,
        )
        return [images for images, _ in shard.batches(epoch, start)]

    # All images are equal, so any difference comes from the transform.
    whole, tail = run(0, 0), run(0, 0, start=1)
    assert [torch.equal(a, b) for a, b in zip(whole[1:], tail, strict=True)] == [True] * 2
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole[0], run(1, 0)[0])
    assert not torch.equal(whole[0], run(0, 1)[0])


def test_a_rank_without_inputs_has_the_targets_of_the_same_samples() -> None:
    shard = make_shards(20, 4, 1)[0]
    alone = replace(shard, inputs=None)
    pairs = zip(shard.batches(1), alone.batches(1), strict=True)
    for (_, targets), (nothing, same) in pairs:
        assert nothing is None
        assert torch.equal(targets, same)


def test_arrays_of_numpy_are_rows_too(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(24, dtype=np.float32).reshape(8, 3))
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    shard = ShardedBatches(inputs=mapped, targets=np.arange(8), batch_size=4)
    for inputs, targets in shard.batches(0):
        assert inputs is not None
        assert torch.equal(inputs[:, 0], 3.0 * targets)


def test_a_set_too_small_for_all_ranks_is_refused() -> None:
    assert len(make_shards(12, 4, 3)[2]) == 1
    with pytest.raises(ValueError, match=r"4 \* 3 samples or more, got 11"):
        make_shards(11, 4, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 2}, "got 2"),
        ({"rank": -1}, "got -1"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"targets": torch.zeros(3)}, "3 targets"),
    ],
)
def test_mistakes_in_sharding_are_named(changes: dict[str, object], message: str) -> None:
    settings: dict[str, object] = {
        "inputs": random_bytes(8, 1, 2, 2),
        "targets": torch.zeros(8),
        "batch_size": 2,
        "num_ranks": 2,
        **changes,
    }
    with pytest.raises(ValueError, match=message):
        ShardedBatches(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("epoch", "start"), [(-1, 0), (0, 3), (0, -1)])
def test_mistakes_in_batches_raise_at_once(epoch: int, start: int) -> None:
    with pytest.raises(ValueError, match="expected 0"):
        make_shards(10, 5, 1)[0].batches(epoch, start)

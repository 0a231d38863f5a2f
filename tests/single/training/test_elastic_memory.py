"""What a worker of an elastic job keeps, and where it continues."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.elastic.worker.commit_memory import NO_STEP, Commit, CommitMemory, Meeting
from knet_hvd.training.state.resume_point import ResumePoint
from tests.single.data.test_sharding import make_shards


def commit(step: int) -> Commit:
    return Commit(ResumePoint(step), {"made": step})


def test_the_last_two_commits_are_kept() -> None:
    memory = CommitMemory()
    assert memory.latest == NO_STEP
    for step in (0, 20, 40):
        memory.add(commit(step))
    assert memory.latest == 40
    with pytest.raises(KeyError):
        memory.back_to(0)


def test_what_came_after_the_common_commit_is_forgotten() -> None:
    memory = CommitMemory()
    for step in (20, 40):
        memory.add(commit(step))
    assert memory.back_to(20).shard == {"made": 20}
    assert memory.latest == 20


def test_the_summary_tells_of_the_workers() -> None:
    memory = CommitMemory([Meeting(0, 4, 0), Meeting(40, 3, 7), Meeting(60, 4, 0)])
    assert memory.facts() == {
        "resets": 2,
        "sizes": [4, 3, 4],
        "reset_steps": [40, 60],
        "steps_lost": 7,
    }


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(60, 200),
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    batch_size=st.integers(1, 5),
    epoch=st.integers(0, 9),
    stops=st.lists(st.integers(0, 3), min_size=4, max_size=4),
)
def test_an_epoch_continues_with_the_images_that_are_left(
    count: int, sizes: list[int], batch_size: int, epoch: int, stops: list[int]
) -> None:
    """However often the number of ranks changes, no image is seen twice."""
    seen: list[int] = []
    start = 0
    for number, (size, stop) in enumerate(zip(sizes, stops, strict=False)):
        shards = make_shards(count, batch_size, size)
        last = number == len(sizes) - 1
        steps = shards[0].num_batches(start)
        steps = steps if last else min(stop, steps)
        for shard in shards:
            for _, labels in list(shard.batches(epoch, 0, start))[:steps]:
                seen += labels.tolist()
        start += steps * size * batch_size
    assert len(set(seen)) == len(seen) == start
    assert count - start < sizes[-1] * batch_size


def test_a_schedule_has_no_step_where_the_number_of_ranks_changes() -> None:
    plain = ResumePoint()
    whole = ResumePoint(remaining=1.0)
    assert [whole.remaining_at(s, 90) for s in range(91)] == [
        plain.remaining_at(s, 90) for s in range(91)
    ]
    left = whole.remaining_at(30, 90)
    after = ResumePoint(step=30, remaining=left)
    assert after.remaining_at(30, 500) == left
    assert after.remaining_at(500, 500) == 0.0
    assert after.remaining_at(265, 500) == pytest.approx(left / 2)


@pytest.mark.parametrize("name", ["checkpoint_dir", "profile"])
def test_settings_that_do_not_go_together_are_refused(name: str, tmp_path: str) -> None:
    with pytest.raises(ValueError, match=f"elastic and {name} do not go together"):
        TrainingConfig(elastic=True, **{name: tmp_path})  # type: ignore[arg-type]
    TrainingConfig(**{name: tmp_path})  # type: ignore[arg-type]

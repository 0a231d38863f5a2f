"""Ranks that give up tell the others, which would wait for them in vain."""

import time

import pytest

from knet_hvd.comm import LinkSpec, NoticeError, ReceiveLink, SendLink, World
from knet_hvd.errors import KnetError
from tests.parallel.mpi import needs_mpi_ranks, world

__all__ = ["world"]

SOON_S = 5.0
"""A rank knows after 0.1 s; the machine may be busy. Without a notice it would wait for 20 s."""
ENDED = "ended training after {} steps, rank {} {}: loaders have to end at the same time on every"


def never() -> bool:
    return False


@needs_mpi_ranks(2)
def test_ranks_that_wait_hear_why_another_failed(world: World) -> None:
    if world.rank == 1:
        time.sleep(0.3)  # the others wait by now
        world.notices.fail("rank 1: loss: expected a scalar, got [3]")
        world.notices.fail("a consequence of it")
    else:
        start_s = time.monotonic()
        with pytest.raises(NoticeError, match=r"^rank 1 failed: loss: .*, got \[3\]$"):
            world.waiter.until(never, "a tensor")
        assert time.monotonic() - start_s < SOON_S
        world.notices.fail("what rank 1 has told already")
    # From now on no other wait begins, or reports something else.
    if world.rank != 1:
        with pytest.raises(NoticeError, match="rank 1 failed: loss"):
            world.gather_text("", "a collective that rank 1 does not join")


@needs_mpi_ranks(2)
def test_a_collective_that_all_have_joined_comes_first(world: World) -> None:
    """Ranks that find the same fault at once each say what they hold themselves."""
    gathered = world.comm.Ibarrier()
    if world.rank == 1:
        world.notices.fail("this rank holds another value")
    else:
        time.sleep(0.2)
        world.waiter.until(gathered.Test, "the others")
        with pytest.raises(NoticeError, match="rank 1 failed: this rank holds another value"):
            world.notices.check()
    gathered.Wait()


@needs_mpi_ranks(2)
def test_a_rank_on_a_link_hears_of_a_failure(world: World) -> None:
    if world.rank < 2:
        spec = LinkSpec(name="tensors", source=0, target=1, tag=5, shape=(2,))
        if world.rank == 0:
            SendLink(world, spec)
            world.notices.fail("the model of this rank has no parameters")
        else:
            receive = ReceiveLink(world, spec)
            with pytest.raises(KnetError, match="rank 0 failed: the model of this rank has no"):
                receive.receive(0)
            receive.close()


@needs_mpi_ranks(2)
@pytest.mark.parametrize("steps_here", [3, 7])
def test_a_rank_in_a_step_that_another_never_runs(world: World, steps_here: int) -> None:
    world.notices.begin_steps()
    if world.rank == 1:
        world.notices.leave_steps(3)
        with pytest.raises(NoticeError, match=r"ended training after 5 steps, rank 1 after 3"):
            world.waiter.until(never, "the others to evaluate")
    else:
        world.notices.step = 2  # rank 1 has run it too
        time.sleep(0.2)
        world.notices.check()
        world.notices.step = steps_here
        expected = ENDED.format(3, world.rank, f"is in step {steps_here + 1}")
        with pytest.raises(NoticeError, match=f"^rank 1 {expected}"):
            world.waiter.until(never, "a tensor")
        world.notices.leave_steps(5)


def test_loops_that_end_together(world: World) -> None:
    """Ranks begin and end loops at different times; only those of the same loop count."""
    for loop in range(4):
        world.notices.begin_steps()
        for step in range(3):
            world.notices.step = step
            time.sleep(0.01 * (world.rank == loop % world.size))
            world.notices.check()
        world.notices.leave_steps(3)
        world.notices.check()
    world.gather_text("", "all ranks")  # all have told of four loops, and nothing is wrong
    world.notices.check()


def test_nothing_is_left_for_the_next_communicator(world: World) -> None:
    for _ in range(3):
        again = World(timeout_s=20.0)
        again.notices.begin_steps()
        again.notices.leave_steps(world.rank)
        again.notices.fail(f"rank {world.rank} leaves" + " long" * 2000)
        again.close()
    world.gather_text("", "all ranks")
    world.notices.check()


@needs_mpi_ranks(2)
def test_closing_does_not_wait_long_for_ranks_that_are_lost(world: World) -> None:
    again = World(timeout_s=20.0)
    if world.rank == 0:
        start_s = time.monotonic()
        again.close()
        assert 1.5 < time.monotonic() - start_s < 2 + SOON_S
    world.gather_text("", "rank 0")
    if world.rank > 0:
        again.close()

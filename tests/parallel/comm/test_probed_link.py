"""Links for lists of tensors of which the other end knows nothing before."""

import pytest
import torch

from knet_hvd.comm import ProbedLink, World
from knet_hvd.comm.links.encodings import DTYPES
from knet_hvd.errors import KnetError
from tests.parallel.mpi import needs_mpi_ranks, world

__all__ = ["world"]

TARGETS = {"name": "targets", "tag": 5}


def ring(world: World, **settings: int) -> tuple[ProbedLink, ProbedLink]:
    """Return the links to the next rank and from the one before."""
    return tuple(
        ProbedLink(
            world,
            name="targets",
            source=source,
            target=(source + 1) % world.size,
            tag=5,
            **settings,
        )
        for source in (world.rank, (world.rank - 1) % world.size)
    )


def targets_of(rank: int, step: int) -> list[torch.Tensor]:
    """Return a list whose length, shapes and dtypes differ from step to step."""
    generator = torch.Generator().manual_seed(rank * 1009 + step)
    made = []
    for index in range(1 + step % 3):
        size = [int(n) for n in torch.randint(0, 40, ((step + index) % 4,), generator=generator)]
        values = torch.randint(0, 2, size, generator=generator)
        made.append(values.to(DTYPES[(step + index) % len(DTYPES)]))
    return made


def test_lists_of_any_tensors_arrive_in_order(world: World) -> None:
    send, receive = ring(world, credits=2)
    previous = (world.rank - 1) % world.size
    for step in range(60):
        send.send(targets_of(world.rank, step), step, microbatch=step % 2)
        actual = receive.receive(step, microbatch=step % 2)
        expected = targets_of(previous, step)
        assert [each.dtype for each in actual] == [each.dtype for each in expected]
        assert all(map(torch.equal, actual, expected))
    send.flush()
    assert send.sent_bytes >= 60 * 64
    send.close()
    receive.close()


def test_a_large_message_crosses_while_a_small_one_waits(world: World) -> None:
    send, receive = ring(world)
    large = torch.arange(1_000_000).add(world.rank)
    for step, tensors in enumerate(([large[:1]], [large, large.double()], [large[:7].int()])):
        send.send(tensors, step)
    previous = (world.rank - 1) % world.size
    expected = torch.arange(1_000_000).add(previous)
    assert torch.equal(receive.receive(0)[0], expected[:1])
    integers, floats = receive.receive(1)
    last = receive.receive(2)[0]
    assert torch.equal(integers, expected)  # what came later has not changed it
    assert torch.equal(floats, expected.double())
    assert torch.equal(last, expected[:7].int())
    send.flush()


def test_a_fast_sender_waits_for_a_slow_receiver(world: World) -> None:
    send, receive = ring(world, credits=2)
    for step in range(2):
        send.send(targets_of(world.rank, step), step)
    world.waiter.timeout_s = 0.3
    with pytest.raises(KnetError, match=r"targets from rank .*: nothing came within 0\.3 s"):
        send.send(targets_of(world.rank, 2), 2)
    world.waiter.timeout_s = 20.0
    world.gather_text("", "all ranks")
    for step in range(2):
        receive.receive(step)
    send.flush()


def test_lists_that_are_refused(world: World) -> None:
    send, receive = ring(world, limit_bytes=1000)
    with pytest.raises(ValueError, match="at least one, got none"):
        send.send([], 0)
    with pytest.raises(KnetError, match="expected at most 1000 bytes at once, got 1728"):
        send.send([torch.ones(200), torch.ones(200)], 0)
    with pytest.raises(TypeError, match=r"got torch\.complex64"):
        send.send([torch.ones(3, dtype=torch.complex64)], 0)
    send.send([torch.ones(200)], 7)
    with pytest.raises(KnetError, match="expected step 8, microbatch 0, got step 7"):
        receive.receive(8)
    send.flush()


@needs_mpi_ranks(2)
def test_messages_that_are_too_long_are_never_received(world: World) -> None:
    if world.rank < 2:
        # The sender has a higher limit, as one of another release might.
        limit = 10_000 if world.rank == 0 else 1000
        link = ProbedLink(world, **TARGETS, source=0, target=1, limit_bytes=limit)
        if world.rank == 0:
            link.send([torch.ones(500)], 0)
            link.flush()
        else:
            with pytest.raises(KnetError, match="expected at most 1000 bytes at once, got 2064"):
                link.receive(0)
            world.comm.Recv(bytearray(2064), 0, 5)  # so that nothing is left
    world.gather_text("", "the end of the test")


@needs_mpi_ranks(2)
@pytest.mark.parametrize(
    ("message", "refused"),
    [
        (b"\x00" * 64, "expected a frame of version 2"),
        (b"KNET" * 3, "a frame has at least 64 bytes, not 12"),
        (b"KNET" + b"\xff" * 60, "expected a frame of 18446744073709551679 bytes, got 64"),
    ],
)
def test_messages_that_are_no_frames(world: World, message: bytes, refused: str) -> None:
    if world.rank == 0:
        world.comm.Send(message, 1, 5)
    elif world.rank == 1:
        link = ProbedLink(world, **TARGETS, source=0, target=1)
        with pytest.raises(KnetError, match=refused):
            link.receive(0)
    world.gather_text("", "the end of the test")


@pytest.mark.parametrize("wrong", [{"credits": 0}, {"limit_bytes": 63}, {"limit_bytes": 2**31}])
def test_numbers_that_no_link_can_have(world: World, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ProbedLink(world, **TARGETS, source=0, target=0, **wrong)

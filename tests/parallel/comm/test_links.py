"""Links between ranks: each sends to the next, the last to the first."""

import time

import pytest
import torch

from knet_hvd.comm import ENCODINGS, LinkSpec, ReceiveLink, SendLink, World, check_agreement
from knet_hvd.comm.links.encodings import DTYPES
from knet_hvd.errors import KnetError, RankMismatchError
from tests.parallel.mpi import needs_mpi_ranks, world

__all__ = ["world"]


def make_tensor(rank: int, step: int, rows: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rank * 1009 + step)
    return torch.randn(rows, 3, 4, 5, generator=generator).relu()


def ring(world: World, **settings: object) -> tuple[SendLink, ReceiveLink]:
    """Return the links to the next rank and from the one before."""
    specs = [
        LinkSpec(
            name="tensors",
            source=source,
            target=(source + 1) % world.size,
            tag=5,
            shape=(6, 3, 4, 5),
            **settings,
        )
        for source in (world.rank, (world.rank - 1) % world.size)
    ]
    return SendLink(world, specs[0]), ReceiveLink(world, specs[1])


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tensors_arrive_in_order(world: World, encoding: str) -> None:
    send, receive = ring(world, encoding=encoding, credits=2)
    previous = (world.rank - 1) % world.size
    for step in range(50):
        rows = 1 + step % 6
        send.send(make_tensor(world.rank, step, rows), step, microbatch=step % 3)
        actual = receive.receive(step, microbatch=step % 3)
        expected = make_tensor(previous, step, rows)
        if encoding == "bf16":
            expected = expected.bfloat16().float()
        assert torch.equal(actual, expected)
    send.flush()
    receive.close()
    assert send.sent_frames == 50


@needs_mpi_ranks(2)
def test_frames_that_are_larger_than_the_buffers_are_never_received(world: World) -> None:
    """MPI would write past the buffers before it says so."""
    if world.rank == 0:
        spec = LinkSpec(name="tensors", source=0, target=1, tag=6, shape=(600, 3, 4, 5))
        send = SendLink(world, spec)
        send.send(make_tensor(0, 0, 600), 0)
    elif world.rank == 1:
        spec = LinkSpec(name="tensors", source=0, target=1, tag=6, shape=(6, 3, 4, 5))
        with pytest.raises(KnetError, match="expected frames of 1504 bytes, got 144064"):
            ReceiveLink(world, spec)
        # Take what is on its way, so that nothing is left for the next test.
        frame = torch.empty(144064, dtype=torch.uint8)
        world.comm.Recv([frame.numpy(), frame.numel()], 0, 6)
    world.gather_text("", "the end of the test")


def test_a_fast_sender_waits_for_a_slow_receiver(world: World) -> None:
    send, receive = ring(world, credits=2)
    for step in range(4):  # two buffers here and two there
        send.send(make_tensor(world.rank, step), step)
    world.waiter.timeout_s = 0.3
    with pytest.raises(KnetError, match=r"nothing came within 0\.3 s"):
        send.send(make_tensor(world.rank, 4), 4)
    world.waiter.timeout_s = 20.0
    assert world.waiter.idle_s < 5
    world.gather_text("", "all ranks")  # nobody receives before all have seen it
    for step in range(4):
        receive.receive(step)
    send.flush()
    receive.close()


@needs_mpi_ranks(2)
def test_waiting_is_counted_and_ends(world: World) -> None:
    send, receive = ring(world)
    if world.rank == 0:
        time.sleep(0.5)
    send.send(make_tensor(world.rank, 0), 0)
    assert torch.equal(receive.receive(0), make_tensor((world.rank - 1) % world.size, 0))
    if world.rank == 1:
        assert 0.3 < world.waiter.idle_s < 5
    world.waiter.timeout_s = 0.2
    with pytest.raises(KnetError, match=rf"to rank {world.rank}: nothing came"):
        receive.receive(1)
    send.flush()
    receive.close()


def test_frames_that_were_not_expected(world: World) -> None:
    send, receive = ring(world)
    send.send(make_tensor(world.rank, 7), 7)
    with pytest.raises(KnetError, match="expected step 8, microbatch 0, got step 7"):
        receive.receive(8)
    for wrong in (torch.ones(7, 3, 4, 5), torch.ones(6, 3, 4, 6), torch.ones(6, 3, 4)):
        with pytest.raises(KnetError, match=r"expected \[6, 3, 4, 5\] or smaller, got \["):
            send.send(wrong, 8)
    send.flush()
    receive.receive(7)
    receive.close()


def test_tensors_of_every_dtype_arrive(world: World) -> None:
    previous = (world.rank - 1) % world.size
    for dtype in DTYPES:
        send, receive = ring(world, encoding="raw", dtype=dtype, credits=2)
        for step, part in enumerate((slice(None), slice(2), slice(0))):
            sent = make_tensor(world.rank, step)[part, :, : step + 1] * 3
            send.send(sent.to(dtype), step)
            actual = receive.receive(step)
            expected = make_tensor(previous, step)[part, :, : step + 1] * 3
            assert actual.dtype == dtype
            assert torch.equal(actual, expected.to(dtype))
        send.flush()
        receive.close()
        world.gather_text("", "all ranks")  # before anybody opens the next link


def test_tensors_of_another_dtype_than_agreed(world: World) -> None:
    send, other = ring(world, encoding="raw", dtype=torch.int32)
    other.close()
    world.gather_text("", "all ranks")
    receive = ring(world, encoding="raw")[1]  # frames are as large, so this is not noticed here
    with pytest.raises(KnetError, match=r"expected torch.int32, got torch.float32"):
        send.send(make_tensor(world.rank, 0), 0)
    send.send(make_tensor(world.rank, 0).int(), 0)
    with pytest.raises(KnetError, match=r"expected torch.float32, got torch.int32"):
        receive.receive(0)
    send.flush()
    receive.close()


def test_targets_that_differ_are_found(world: World) -> None:
    send, receive = ring(world)
    checksums = [(0, 0), (0, 7), (7, 0), (7, 7), (2**32 - 1, 2**32 - 1), (7, 8)]
    for step, (theirs, ours) in enumerate(checksums):
        send.send(make_tensor(world.rank, step), step, 0, theirs)
        if step < 5:
            receive.receive(step, 0, checksum=ours)
    previous = (world.rank - 1) % world.size
    message = f"targets of step 5 differ between rank {previous} and rank {world.rank}: does every"
    with pytest.raises(KnetError, match=message):
        receive.receive(5, 0, checksum=8)
    send.flush()
    receive.close()


@pytest.mark.parametrize(
    ("sent", "agreed", "refused"),
    [
        ("relu-sparse", "fp32", True),
        ("bf16", "fp32", True),
        ("fp32", "bf16", True),
        ("fp32", "raw", True),
        ("raw", "fp32", True),
        ("fp32", "relu-sparse", False),
    ],
)
def test_frames_in_another_encoding_than_agreed(
    world: World, sent: str, agreed: str, refused: bool
) -> None:
    send, other = ring(world, encoding=sent)
    other.close()
    world.gather_text("", "all ranks")
    receive = ring(world, encoding=agreed)[1]
    values = make_tensor(world.rank, 0, rows=2)
    send.send(values, 0)
    if refused:
        with pytest.raises(KnetError, match=f"expected {agreed}, got {sent}"):
            receive.receive(0)
    else:
        receive.receive(0)
    send.flush()
    receive.close()


@needs_mpi_ranks(2)
def test_ends_that_disagree_find_out(world: World) -> None:
    columns = 4 if world.rank == 1 else 3
    facts = LinkSpec("activations", 0, 1, 1, (8, columns)).facts()
    if world.rank > 1:
        facts = {}
        check_agreement(world, facts, "the links")
        return
    with pytest.raises(RankMismatchError) as error:
        check_agreement(world, facts, "the links")
    other = 1 - world.rank
    assert (
        f"rank {world.rank}: ranks disagree on the links. link 0 -> 1, activations: "
        f"float32 [8, {columns}] as fp32, 4 credits here, "
        f"float32 [8, {7 - columns}] as fp32, 4 credits on rank {other}."
    ) in str(error.value)


@needs_mpi_ranks(2)
@pytest.mark.parametrize("garbage", ["null", "[" * 100_000, "7"])
def test_a_rank_that_sends_no_facts(world: World, garbage: str) -> None:
    if world.rank == 1:
        for _ in range(2):
            world.gather_text(garbage, "the links")
        return
    with pytest.raises(RankMismatchError, match="rank 1 sent no facts: is it of another version"):
        check_agreement(world, {"link": 3}, "the links")


def test_ranks_that_agree(world: World) -> None:
    check_agreement(world, {"batch_size": 3, f"only on {world.rank}": 1}, "settings")
    texts = world.gather_text("é" * world.rank, "texts of all lengths")
    assert texts == ["é" * rank for rank in range(world.size)]


def test_tensors_arrive_while_a_thread_keeps_messages_moving(world: World) -> None:
    assert len(world.hosts()) == world.size
    world.start_progress()
    world.start_progress()
    send, receive = ring(world, credits=3)
    previous = (world.rank - 1) % world.size
    for step in range(100):
        send.send(make_tensor(world.rank, step), step)
        time.sleep(0.001 * (step % 7 == world.rank))
        assert torch.equal(receive.receive(step), make_tensor(previous, step))
    send.flush()
    receive.close()
    world.stop_progress()
    world.stop_progress()

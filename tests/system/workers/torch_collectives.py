"""One rank: try every operation of TorchCollectives against its formula, or lose a rank."""

import os
import sys
import time
import warnings

import torch
import torch.distributed as dist
from torch import Tensor

from knet_hvd.collectives.torch_distributed import TorchCollectives
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks

warnings.simplefilter("error")  # a deprecated function may go away
torch.set_num_threads(1)
RANK, SIZE = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
NAN, INF = torch.nan, torch.inf


def drawn(rank: int, numel: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(rank)
    return torch.randn(numel, generator=generator, dtype=torch.float64).mul(100).to(dtype)


def check_reductions(ranks: TorchCollectives, members: list[int]) -> None:
    for dtype in (torch.float32, torch.float64, torch.int32, torch.int64):
        for numel in (1, 7, 1001):
            sent = [drawn(rank, numel, dtype) for rank in members]
            own = drawn(RANK, numel, dtype)
            handle = ranks.maximum(own.clone(), f"scales.{numel}")
            added = ranks.sum(own.clone(), f"float.{numel}")  # while the other one is on its way
            assert torch.equal(handle.wait(), torch.stack(sent).amax(0)), dtype
            torch.testing.assert_close(added.wait(), torch.stack(sent).sum(0, dtype=dtype))
    sent = [drawn(rank, 5, torch.float32) for rank in members]
    mean = ranks.mean(drawn(RANK, 5, torch.float32), "float.mean").wait()
    torch.testing.assert_close(mean, torch.stack(sent).mean(0))
    halves = ranks.sum(torch.full((3,), 1.5, dtype=torch.float16), "float.half").wait()
    assert halves.tolist() == [1.5 * len(members)] * 3


def check_special_values(ranks: TorchCollectives, members: list[int]) -> None:
    """A NaN of any rank, of either sign, is the maximum on all; so is infinity."""
    for dtype in (torch.float32, torch.float64):
        for rank in members:
            own = torch.tensor([1.0, 1.0, 0.0, -2.0, INF], dtype=dtype)
            if rank == RANK:
                own = torch.tensor([NAN, INF, -0.0, -1.0, -INF], dtype=dtype)
                own[0] = -own[0]
            result = ranks.maximum(own, "scales.special").wait()
            assert result.isnan().tolist() == [True] + [False] * 4, result
            assert result[1:].tolist() == [INF, 0.0, -1.0, INF], result


def check_moves(ranks: TorchCollectives, members: list[int]) -> None:
    count, place = len(members), members.index(RANK)
    for sizes in ([8] * count, [2 * i + 1 for i in range(count)], [0, *[5] * (count - 1)]):
        for dtype in (torch.uint8, torch.int64):
            sent = [torch.arange(size).add(10 * i).to(dtype) for i, size in enumerate(sizes)]
            handle = ranks.all_gather(sent[place], sizes, "codes.gather")
            assert torch.equal(handle.wait(), torch.cat(sent)), sizes
        # Of rank i, rank j gets sizes[j] values, which tell both.
        parts = [torch.full((size,), 10 * place + j) for j, size in enumerate(sizes)]
        own = torch.cat(parts).to(torch.uint8)
        handle = ranks.all_to_all(own, sizes, [sizes[place]] * count, "levels.split")
        wanted = torch.cat([torch.full((sizes[place],), 10 * i + place) for i in range(count)])
        assert torch.equal(handle.wait(), wanted.to(torch.uint8)), sizes


def check_polling(ranks: TorchCollectives) -> None:
    if ranks.rank == 1:
        time.sleep(0.5)
    handle = ranks.sum(torch.ones(3), "float.late")
    if ranks.rank == 0:
        assert not handle.poll(), "another rank has not begun"
    while not handle.poll():
        time.sleep(0.001)
    assert handle.wait().tolist() == [float(ranks.size)] * 3


def check_all(ranks: TorchCollectives, members: list[int]) -> None:
    assert (list(ranks.ranks), ranks.size, ranks.job_rank) == (members, len(members), RANK)
    ranks.check_device(torch.device("cpu"))
    check_reductions(ranks, members)
    check_special_values(ranks, members)
    check_moves(ranks, members)
    texts = CollectiveRanks(ranks).gather_text("x" * RANK, "names")
    assert texts == ["x" * rank for rank in members]
    assert CollectiveRanks(ranks).maximum(RANK, "number") == members[-1]


def lose_a_rank() -> None:
    ranks = TorchCollectives(timeout_s=60)
    ranks.all_gather(torch.zeros(4, dtype=torch.uint8), [4] * SIZE, "codes.0").wait()
    if RANK == 1:
        os.kill(os.getpid(), 9)
    ranks.all_gather(torch.zeros(10**6, dtype=torch.uint8), [10**6] * SIZE, "codes.1.fc").wait()


def leave_one_waiting() -> None:
    """Rank 1 takes no part in an operation, and lives on."""
    ranks = TorchCollectives(timeout_s=2)
    if RANK == 1:
        time.sleep(4)
    else:
        ranks.maximum(torch.ones(3), "scales.0.fc").wait()


def come_to_other_groups() -> None:
    """Rank 1 makes no collectives."""
    if RANK == 1:
        time.sleep(4)
    else:
        TorchCollectives(start_timeout_s=2)


def main(what: str) -> None:
    dist.init_process_group(
        "gloo", init_method=os.environ["KNET_TEST_STORE"], rank=RANK, world_size=SIZE
    )
    if what != "operations":
        {"lost": lose_a_rank, "waiting": leave_one_waiting, "absent": come_to_other_groups}[what]()
        return
    ranks = TorchCollectives()
    check_all(ranks, list(range(SIZE)))
    check_polling(ranks)
    if SIZE > 2:
        part = [0, SIZE - 1]
        group = dist.new_group(part)
        if RANK in part:
            check_all(TorchCollectives(group), part)


main(sys.argv[1])

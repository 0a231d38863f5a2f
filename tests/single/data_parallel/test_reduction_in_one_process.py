"""Reducer and exchanges over ranks of one process: exact bits, without a transport."""

import random

import pytest
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import ErrorFeedback, TernaryCodec, TernaryConfig, local_scales
from knet_hvd.data_parallel.buckets.plan import NamedParameter, plan_buckets
from knet_hvd.data_parallel.exchanges.registry import EXCHANGES, make_exchange
from knet_hvd.data_parallel.reducer.reducer import GradientReducer
from knet_hvd.data_parallel.reducer.state import ReductionState
from tests.single.data_parallel.memory_collectives import Network

SIZES = (5000, 700, 12, 1300, 3, 640)
RANKS = (1, 2, 3, 4, 7)


def gradient(rank: int, step: int, stream: int, size: int | None = None) -> Tensor:
    generator = torch.Generator().manual_seed((rank * 101 + step) * 101 + stream)
    return torch.randn(SIZES[stream] if size is None else size, generator=generator)


class Job:
    """All ranks of a job that exchanges gradients."""

    def __init__(
        self,
        num_ranks: int,
        exchange: str,
        config: TernaryConfig,
        sizes: tuple[int, ...] = SIZES,
        payload_values: int = 1000,
        network: Network | None = None,
    ) -> None:
        self.network = network or Network(num_ranks)
        self.config = config
        self.parameters: list[list[NamedParameter]] = []
        self.reducers: list[GradientReducer] = []
        for ranks in self.network.ranks():
            codec = TernaryCodec(config, ranks.rank)
            own = [NamedParameter(f"p{i}", torch.zeros(n), i) for i, n in enumerate(sizes)]
            buckets = plan_buckets(own, codec, 2000, payload_values=payload_values)
            state = ReductionState(
                codec,
                make_exchange(exchange, codec, ranks, num_ranks),
                error_feedback=ErrorFeedback() if config.error_feedback else None,
            )
            self.parameters.append(own)
            self.reducers.append(GradientReducer(state, *buckets))

    def step(self, step: int, order: random.Random) -> list[list[Tensor]]:
        """Exchange; ranks get their gradients in orders of their own. Return them by rank."""
        events = []
        for rank, own in enumerate(self.parameters):
            for parameter in own:
                size = parameter.tensor.numel()
                parameter.tensor.grad = gradient(rank, step, parameter.stream, size)
                events.append((rank, parameter.tensor))
        order.shuffle(events)
        for rank, tensor in events:
            self.reducers[rank].mark_ready(tensor)
        return self.finish()

    def finish(self) -> list[list[Tensor]]:
        """End the step of all ranks; return their gradients."""
        for _ in range(100):
            done = [reducer.poll() for reducer in self.reducers]
        assert all(done)
        for reducer in self.reducers:
            reducer.finish()
        assert not self.network.operations, "an operation was started and not finished"
        return [[p.tensor.grad for p in own] for own in self.parameters]


def expected(num_ranks: int, step: int, stream: int, config: TernaryConfig) -> Tensor:
    gradients = [gradient(rank, step, stream) for rank in range(num_ranks)]
    if SIZES[stream] < config.min_values:
        return torch.stack(gradients).sum(0) / num_ranks
    scales = torch.stack([local_scales([each], config) for each in gradients]).amax(0)
    payloads = [
        TernaryCodec(config, rank).encode(
            [each],
            scales,
            [stream],
            step,
            torch.empty(ops.payload_bytes(each.numel(), config.wire_format), dtype=torch.uint8),
        )
        for rank, each in enumerate(gradients)
    ]
    mean = torch.empty(SIZES[stream])
    TernaryCodec(config, 0).decode(torch.stack(payloads), scales, [mean], num_ranks)
    return mean


@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("num_ranks", RANKS)
def test_every_rank_gets_the_formulas_bits(num_ranks: int, exchange: str, wire_format) -> None:
    config = TernaryConfig(wire_format=wire_format, scale_group_size=640)
    job, order = Job(num_ranks, exchange, config), random.Random(num_ranks)
    for step in range(3):
        results = job.step(step, order)
        for stream in range(len(SIZES)):
            want = expected(num_ranks, step, stream, config)
            for own in results:
                assert torch.equal(own[stream].view(torch.int32), want.view(torch.int32))


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_as_many_bytes_cross_as_the_formula_says(num_ranks: int, exchange: str) -> None:
    """But for shards of whole blocks and whole words."""
    job = Job(num_ranks, exchange, TernaryConfig(), sizes=(600_000,), payload_values=200_000)
    job.step(0, random.Random(0))
    scales = 2 * 4 * (num_ranks - 1) / num_ranks
    formula = sum(reducer.wire_bytes() - scales for reducer in job.reducers)
    assert job.network.num_bytes == pytest.approx(formula, rel=0.01)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("num_ranks", [2, 3, 7])
def test_every_rank_gathers_as_much(num_ranks: int, exchange: str) -> None:
    """Equal sizes are one operation of NCCL, others one for each rank."""
    job = Job(num_ranks, exchange, TernaryConfig(), sizes=(5000, 700))
    job.step(0, random.Random(0))
    assert job.network.gathered_sizes
    assert all(len(set(sizes)) == 1 for sizes in job.network.gathered_sizes)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_error_feedback_owes_what_was_not_sent(exchange: str) -> None:
    """Over steps, what all ranks got is what all ranks had, but for the residuals."""
    num_ranks, steps = 3, 5
    job = Job(num_ranks, exchange, TernaryConfig(error_feedback=True))
    got = [torch.zeros(size, dtype=torch.float64) for size in SIZES]
    had = [torch.zeros(size, dtype=torch.float64) for size in SIZES]
    for step in range(steps):
        results = job.step(step, random.Random(step))
        for stream in range(len(SIZES)):
            got[stream] += results[0][stream].double()
            for rank in range(num_ranks):
                had[stream] += gradient(rank, step, stream).double() / num_ranks
    residuals = [reducer.state_dict()["residuals"] for reducer in job.reducers]
    for stream, size in enumerate(SIZES):
        owed = sum(each.get(f"p{stream}", torch.zeros(size)).double() for each in residuals)
        torch.testing.assert_close(got[stream] + owed / num_ranks, had[stream], atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_ranks", [2, 3, 7])
def test_rows_of_sparse_gradients_are_added_up(num_ranks: int) -> None:
    """Rank 0 has none in the first step, and no rank has any in the last."""
    job = Job(num_ranks, "alltoall", TernaryConfig(), sizes=(5000, 700))
    for step in range(3):
        want = torch.zeros(5000)
        for rank, (table, other) in enumerate(job.parameters):
            other.tensor.grad = gradient(rank, step, 1, 700)
            table.tensor.grad = None
            if step == 2 or (step == 0 and rank == 0):
                continue
            rows = torch.tensor([[rank, 70, 4990 + step, 70]])
            table.tensor.grad = torch.sparse_coo_tensor(
                rows, torch.arange(1.0, 5.0), [5000], check_invariants=True
            )
            assert job.reducers[rank].may_stay_sparse(table.tensor)
            want += table.tensor.grad.to_dense() / num_ranks
        for averaged, _ in job.finish():
            assert averaged.is_sparse
            torch.testing.assert_close(averaged.to_dense(), want)
        assert [reducer.ternary_names for reducer in job.reducers] == [["p1"]] * num_ranks


def test_a_rank_that_has_not_finished_keeps_the_others_waiting() -> None:
    job = Job(2, "alltoall", TernaryConfig())
    for rank in (0, 1):
        for parameter in job.parameters[rank]:
            parameter.tensor.grad = gradient(rank, 0, parameter.stream)
    assert not job.reducers[0].poll()
    assert job.reducers[0].is_busy
    for _ in range(20):
        done = [reducer.poll() for reducer in reversed(job.reducers)]
    assert all(done)

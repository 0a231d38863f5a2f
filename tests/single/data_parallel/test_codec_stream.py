"""The codec's own CUDA stream: whatever two streams touch is ordered. Needs no GPU."""

import gc
import random
from itertools import count

import pytest
import torch
from torch import Tensor

from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.exchanges.registry import EXCHANGES
from knet_hvd.data_parallel.reducer import codec_stream
from knet_hvd.data_parallel.reducer.codec_stream import CallersStream, CodecStream
from tests.single.data_parallel.stream_races import (
    FakeStream,
    Race,
    Streams,
    StreamsNetwork,
)
from tests.single.data_parallel.test_reduction_in_one_process import SIZES, Job, gradient

CONFIG = TernaryConfig(error_feedback=True, min_values=100)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> Streams:
    """Have every reducer take a stream that is watched."""
    watched, numbers = Streams(), count()

    def make(device: torch.device, priority: int) -> FakeStream:
        assert priority < 0
        return FakeStream(watched, f"codec {next(numbers)}")

    monkeypatch.setattr(torch.cuda, "Stream", make)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: watched.on(stream.name))
    monkeypatch.setattr(torch.cuda, "current_stream", watched.current_stream)
    monkeypatch.setattr(Tensor, "record_stream", lambda t, stream: watched.record(t, stream.name))
    monkeypatch.setattr(codec_stream, "stream_for", CodecStream)
    return watched


def use(kept: list[dict[str, Tensor]], averages: list[list[Tensor]]) -> None:
    """Read the scales of the step before, and update with the averages."""
    for scales in kept:
        torch.cat(list(scales.values()) or [torch.zeros(1)]).sum()
    for own in averages:
        torch._foreach_mul_(own, 0.5)


def read_and_drop(job: Job) -> None:
    """Read what reducers show, load their states again, and drop the gradients."""
    for own, reducer_of_rank in zip(job.parameters, job.reducers, strict=True):
        reducer_of_rank.snapshots["p0"].ternary.abs()
        reducer_of_rank.load_state_dict(reducer_of_rank.state_dict())
        for parameter in own:
            parameter.tensor.grad = None


def train(streams: Streams, exchange: str = "allgather", num_ranks: int = 2) -> None:
    """Train some steps, in which the caller uses, keeps and drops what it may."""
    job = Job(num_ranks, exchange, CONFIG, network=StreamsNetwork(num_ranks, streams))
    for reducer_of_rank in job.reducers:
        reducer_of_rank.request_snapshots(["p0"])
    for step in range(4):
        kept = [dict(reducer_of_rank.scales) for reducer_of_rank in job.reducers]
        use(kept, job.step(step, random.Random(step)))
        kept.clear()
        read_and_drop(job)


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_whatever_two_streams_touch_is_ordered(
    streams: Streams, exchange: str, num_ranks: int
) -> None:
    with streams:
        train(streams, exchange, num_ranks)
    assert streams.num_checked > 1000
    assert not streams.freed_too_early


@pytest.mark.parametrize("method", ["take_over", "hand_over"])
def test_a_missing_wait_is_found(
    streams: Streams, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(CodecStream, method, getattr(CallersStream, method))
    with streams, pytest.raises(Race, match="does not wait for"):
        train(streams)


def begun_job(streams: Streams, *sizes: int) -> Job:
    """Return a job after its first step, from which on backward overlaps with exchanges."""
    network = StreamsNetwork(2, streams)
    job = Job(2, "allgather", TernaryConfig(), sizes or SIZES, network=network)
    job.step(0, random.Random(0))
    return job


def drop_in_flight(streams: Streams) -> None:
    """Drop a job whose gradients have arrived and whose codes may be on their way."""
    job = begun_job(streams)
    for rank, own in enumerate(job.parameters):
        for parameter in own:
            parameter.tensor.grad = gradient(rank, 1, parameter.stream)
            job.reducers[rank].mark_ready(parameter.tensor)
    del job, own, parameter
    gc.collect()  # they lie in a cycle


def test_gradients_dropped_with_their_optimizer_stay_until_codes_are_made(
    streams: Streams,
) -> None:
    with streams:
        drop_in_flight(streams)
    assert not streams.freed_too_early


def test_memory_that_goes_back_too_early_is_found(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: None)
    with streams:
        train(streams)
        assert set(streams.freed_too_early) >= {"codec 0's memory, in use by caller"}
        drop_in_flight(streams)
        assert set(streams.freed_too_early) >= {"caller's memory, in use by codec 3"}


def test_codes_do_not_wait_for_the_rest_of_backward(streams: Streams) -> None:
    """Scales of 2 ranks have been shared; then backward continues, and codes are made."""
    with streams:
        job = begun_job(streams, 5000)
        for rank, own in enumerate(job.parameters):
            own[0].tensor.grad = gradient(rank, 1, 0, 5000)
        for rank, own in enumerate(job.parameters):
            job.reducers[rank].mark_ready(own[0].tensor)
        begun = streams.clocks["caller"]["caller"]
        torch.ones(3).exp_()  # the rest of backward
        for _ in range(9):
            done = [each.poll() for each in job.reducers]
        assert all(done)
        assert streams.clocks["codec 0"]["codec 0"] > 10
        assert streams.clocks["codec 0"]["caller"] <= begun
        for each in job.reducers:
            each.finish()
        assert streams.clocks["caller"]["codec 0"] == streams.clocks["codec 0"]["codec 0"]


def test_gradients_of_one_bucket_may_come_from_several_streams(streams: Streams) -> None:
    with streams:
        job = begun_job(streams, 900, 800)
        for rank, own in enumerate(job.parameters):
            for parameter, stream in zip(own, ("branch", "caller"), strict=True):
                with streams.on(stream):
                    size = parameter.tensor.numel()
                    parameter.tensor.grad = gradient(rank, 1, parameter.stream, size)
                    job.reducers[rank].mark_ready(parameter.tensor)
        assert all(reducer_of_rank.is_busy for reducer_of_rank in job.reducers)
        assert streams.clocks["codec 1"]["branch"] == streams.clocks["branch"]["branch"]


def test_a_cpu_has_no_stream_of_its_own() -> None:
    assert type(codec_stream.stream_for(torch.device("cpu"))) is CallersStream

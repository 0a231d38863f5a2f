"""Copies between a GPU and MPI's buffers, with stand-ins for CUDA's streams."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from knet_hvd.comm.links.staging import Staging

GPU = torch.device("cuda", 0)


class Stream:
    """Write down what is asked of a stream."""

    def __init__(self, log: list[str]) -> None:
        self._log = log

    def wait_stream(self, other: str) -> None:
        self._log.append(f"wait for the {other}")

    def synchronize(self) -> None:
        self._log.append("the host waits")


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        found.append("on the copies' stream")
        yield
        found.append("off it")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(found))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "caller")
    monkeypatch.setattr(
        Tensor, "record_stream", lambda each, stream: found.append(f"kept for the {stream}")
    )
    return found


def test_what_leaves_a_gpu_is_complete_before_mpi_reads_it(log: list[str]) -> None:
    with Staging(GPU).leaving():
        log.append("copy")
    steps = ["wait for the caller", "on the copies' stream", "copy", "off it", "the host waits"]
    assert log == steps


def test_what_arrives_does_not_wait_for_kernels_that_are_queued(log: list[str]) -> None:
    def copy() -> Tensor:
        log.append("copy")
        return torch.ones(2)

    assert Staging(GPU).arriving(copy).tolist() == [1, 1]
    steps = ["on the copies' stream", "copy", "off it", "the host waits", "kept for the caller"]
    assert log == steps


def test_a_cpu_needs_neither_streams_nor_pinned_buffers(log: list[str]) -> None:
    staging = Staging(torch.device("cpu"))
    tensor = torch.ones(2)
    with staging.leaving():
        assert staging.arriving(lambda: tensor) is tensor
    assert not staging.pins
    assert log == []
    assert Staging(GPU).pins

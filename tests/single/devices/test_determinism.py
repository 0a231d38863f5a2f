"""Deterministic kernels: what has to be set, and when it is too late."""

import os
from collections.abc import Iterator

import pytest
import torch

from knet_hvd.devices import compute_deterministically
from knet_hvd.errors import KnetError

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(WORKSPACE, "")  # so that the end of the test takes away what it finds
    monkeypatch.delenv(WORKSPACE)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


def test_kernels_and_cublas_are_deterministic_and_cudnn_chooses_none_by_time() -> None:
    compute_deterministically()
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark
    assert os.environ[WORKSPACE] == ":4096:8"


def test_a_setting_of_the_users_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    compute_deterministically()
    assert os.environ[WORKSPACE] == ":16:8"


def test_after_the_first_use_of_a_gpu_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(KnetError, match=f"set {WORKSPACE}=:4096:8 in the environment"):
        compute_deterministically()
    assert WORKSPACE not in os.environ

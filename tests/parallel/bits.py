"""Comparisons bit for bit, within a rank and over ranks."""

import os
from collections.abc import Iterable

import horovod.torch as hvd
import torch
from torch import Tensor


def as_bytes(tensors: Iterable[Tensor]) -> Tensor:
    flat = [t.detach().reshape(-1).contiguous().view(torch.uint8) for t in tensors]
    return torch.cat(flat)


def same_bits(actual: Tensor, expected: Tensor) -> bool:
    same_kind = (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    return same_kind and torch.equal(as_bytes([actual]), as_bytes([expected]))


def assert_same_on_all_ranks(
    tensors: Iterable[Tensor], process_set: hvd.ProcessSet = hvd.global_process_set
) -> None:
    own = as_bytes(tensors)
    name = os.environ["PYTEST_CURRENT_TEST"]
    table = hvd.allgather(own.unsqueeze(0), name=name, process_set=process_set)
    differing = (table != own).any(1).nonzero().flatten().tolist()
    assert not differing, f"rank {hvd.rank()} differs from rows {differing}"

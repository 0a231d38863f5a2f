"""How gradients in floating point are added over ranks."""

from collections.abc import Callable, Generator
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from knet_hvd.collectives import Collectives, Handle

FloatSum: TypeAlias = Callable[[Collectives, Tensor, str], Generator[Handle, Tensor, Tensor]]
"""Takes this rank's values [n], which may be overwritten, and a name; returns the sums [n]."""


def transport_sum(
    collectives: Collectives, values: Tensor, name: str
) -> Generator[Handle, Tensor, Tensor]:
    """Have the transport add: in an order of its own, which depends on a value's place."""
    return (yield collectives.sum(values, f"float.{name}"))


def sum_in_rank_order(
    collectives: Collectives, values: Tensor, name: str
) -> Generator[Handle, Tensor, Tensor]:
    """Add each value in the order of the ranks, wherever it lies among others.

    Each rank adds one shard, then sums are gathered: as many bytes as in a ring.
    """
    num_ranks = collectives.size
    shard = -(-values.numel() // num_ranks)
    padded = pad(values, (0, shard * num_ranks - values.numel()))
    sizes = [shard * values.element_size()] * num_ranks
    handle = collectives.all_to_all(padded.view(torch.uint8), sizes, sizes, f"float.{name}")
    parts = (yield handle).view(values.dtype).view(num_ranks, shard)
    total = parts[0]
    for part in parts[1:]:
        total += part
    handle = collectives.all_gather(total.view(torch.uint8), sizes, f"levels.{name}")
    return (yield handle).view(values.dtype).narrow(0, 0, values.numel())

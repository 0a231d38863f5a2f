"""Checks of the arguments of ``DistributedOptimizer``."""

from dataclasses import asdict
from typing import Any

import horovod.torch as hvd
import torch

from knet_hvd.agreement import check_agreement
from knet_hvd.compression import TernaryConfig
from knet_hvd.compression.levels import MAX_RANKS
from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.data_parallel.exchanges.registry import check_exchange
from knet_hvd.data_parallel.optimizer.averaging import is_averaging
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks

_CHOICES = ("ternary", "auto", "none", "fp16")


def check_choices(optimizer: torch.optim.Optimizer, compression: Any, exchange: str) -> None:
    """Check what is wrapped, and the arguments that name a method.

    Raises:
        ValueError: If one is not supported.
    """
    check_exchange(exchange)
    if is_averaging(optimizer):
        raise ValueError("optimizer: it is already a knet_hvd.DistributedOptimizer")
    if isinstance(compression, str) and compression not in _CHOICES:
        names = ", ".join(_CHOICES)
        raise ValueError(f"compression: expected {names}; got {compression!r}")
    if isinstance(compression, TernaryCompressor):
        raise ValueError(
            "compression: Compression.ternary(...) is for hvd.DistributedOptimizer; "
            "for knet_hvd.DistributedOptimizer pass 'ternary' and `ternary=`"
        )


def check_numbers(
    op: Any,
    gradient_predivide_factor: float,
    backward_passes_per_step: int,
    process_set: hvd.ProcessSet,
) -> None:
    """Check the reduction, the passes and the number of ranks.

    Raises:
        ValueError: If one is out of range or not supported.
    """
    if op not in (hvd.Average, hvd.Sum):
        raise ValueError("op: knet_hvd.DistributedOptimizer supports hvd.Average and hvd.Sum")
    if gradient_predivide_factor != 1.0 and op != hvd.Average:
        raise ValueError("gradient_predivide_factor needs op=hvd.Average")
    if backward_passes_per_step < 1:
        raise ValueError(
            f"backward_passes_per_step: expected at least 1, got {backward_passes_per_step}"
        )
    if process_set.included() and process_set.size() > MAX_RANKS:
        raise ValueError(f"at most {MAX_RANKS} ranks, got {process_set.size()}")


def check_ranks_agree(
    parameters: list[NamedParameter],
    config: TernaryConfig,
    settings: tuple[object, ...],
    ranks: CollectiveRanks,
) -> None:
    """Check that all ranks have the same parameters and settings.

    Raises:
        RankMismatchError: On every rank, if they have not.
        KnetError: If a rank does not take part in time.
    """
    facts = {"settings": settings, "ternary": asdict(config)}
    facts |= {p.name: f"{p.tensor.dtype} {list(p.tensor.shape)}" for p in parameters}
    what = "parameters and settings of DistributedOptimizer"
    check_agreement(ranks, facts, what, same_names=True)

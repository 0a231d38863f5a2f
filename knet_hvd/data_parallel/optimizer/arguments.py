"""Arguments of ``DistributedOptimizer`` that only it has, checked before ranks meet."""

from dataclasses import asdict
from typing import Any

import horovod.torch as hvd
import torch
from horovod.torch.optimizer import DistributedOptimizer as HorovodDistributedOptimizer

from knet_hvd.agreement import check_agreement
from knet_hvd.argument_checks import check_integer, check_positive, shown
from knet_hvd.compression import TernaryConfig
from knet_hvd.compression.levels import MAX_RANKS
from knet_hvd.data_parallel.allreduce.compression import Compression
from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.data_parallel.optimizer.averaging import is_averaging
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks

_CHOICES = ("ternary", "auto", "none", "fp16")


def check_optimizer(optimizer: Any) -> None:
    """Check what is wrapped.

    Raises:
        TypeError: If it is no optimizer.
        ValueError: If it is wrapped already, by us or by Horovod.
    """
    if is_averaging(optimizer):
        raise ValueError("optimizer: it is already a knet_hvd.DistributedOptimizer")
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            f"optimizer: expected a torch.optim.Optimizer, got {shown(optimizer)}; "
            "write torch.optim.SGD(model.parameters(), lr=0.01)"
        )
    if type(optimizer).__module__ == HorovodDistributedOptimizer.__module__:
        raise ValueError(
            "optimizer: it is already an hvd.DistributedOptimizer; pass the one that this was given"
        )


def check_compression(compression: Any) -> None:
    """Check the ``compression`` argument.

    Raises:
        TypeError: If it is neither a name nor a Horovod compressor.
        ValueError: If it is a name that does not exist, or path B's compressor.
    """
    names = ", ".join(_CHOICES)
    if isinstance(compression, str):
        if compression not in _CHOICES:
            raise ValueError(f"compression: expected {names}; got {compression!r}")
    elif isinstance(compression, TernaryCompressor) or compression is Compression.ternary:
        raise ValueError(
            "compression: Compression.ternary(...) is for hvd.DistributedOptimizer; "
            "for knet_hvd.DistributedOptimizer pass 'ternary' and `ternary=`"
        )
    elif not (hasattr(compression, "compress") and hasattr(compression, "decompress")):
        raise TypeError(
            f"compression: expected {names} or a Horovod compressor; got {shown(compression)}"
        )


def check_reduction(op: Any, gradient_predivide_factor: Any, process_set: hvd.ProcessSet) -> None:
    """Check the divisor and the number of ranks; ``op`` itself is checked before.

    Raises:
        TypeError: If the factor is no number.
        ValueError: If it is out of range, or there are too many ranks.
    """
    check_positive("gradient_predivide_factor", gradient_predivide_factor)
    if gradient_predivide_factor != 1.0 and op != hvd.Average:
        raise ValueError("gradient_predivide_factor needs op=hvd.Average")
    if process_set.included() and process_set.size() > MAX_RANKS:
        raise ValueError(f"at most {MAX_RANKS} ranks, got {process_set.size()}")


def check_bucket_sizes(max_bucket_values: Any, payload_values: Any) -> None:
    """Check how many values cross together.

    Raises:
        TypeError: If one is no integer.
        ValueError: If one is less than 1.
    """
    if max_bucket_values is not None:
        check_integer("max_bucket_values", max_bucket_values, least=1)
    check_integer("payload_values", payload_values, least=1)


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

"""Arguments that both ways into Horovod share, checked when something is made."""

from typing import Any

import horovod.torch as hvd

from knet_hvd.argument_checks import shown


def check_op(op: Any, maker: str) -> None:
    """Check a reduction operation.

    Raises:
        ValueError: If it is not the average or the sum.
    """
    if op is hvd.Adasum or op == hvd.Adasum:
        raise ValueError(
            f"op: {maker} supports hvd.Average and hvd.Sum, not hvd.Adasum, which has no sum of "
            "codes; use hvd.DistributedOptimizer with hvd.Compression.none for it"
        )
    if isinstance(op, (bool, float)) or op not in (hvd.Average, hvd.Sum):
        raise ValueError(f"op: {maker} supports hvd.Average and hvd.Sum, got {shown(op)}")


def check_process_set(process_set: Any) -> None:
    """Check a process set.

    Raises:
        TypeError: If it is anything else, such as a list of ranks.
        ValueError: If Horovod does not know it yet.
    """
    if not isinstance(process_set, hvd.ProcessSet):
        raise TypeError(
            f"process_set: expected an hvd.ProcessSet, got {shown(process_set)}; "
            "write hvd.add_process_set([0, 1])"
        )
    if process_set.process_set_id is None:
        raise ValueError(
            "process_set: Horovod does not know it; pass it to hvd.init(process_sets=...) or to "
            "hvd.add_process_set(...) first"
        )

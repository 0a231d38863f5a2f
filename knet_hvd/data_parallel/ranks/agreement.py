"""Check that ranks agree before they wait for each other."""

import hashlib
import time
from collections.abc import Mapping

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.deadline import Deadline
from knet_hvd.errors import KnetError, RankMismatchError

_ENTRY_BYTES = 16
_MAX_SHOWN = 5


def wait(handle: int, what: str, timeout_s: float) -> Tensor:
    """Wait for a Horovod operation, but not for ever.

    Raises:
        KnetError: If some rank has not joined within ``timeout_s`` seconds, or is lost.
    """
    deadline = Deadline(timeout_s)
    while not hvd.poll(handle):
        if deadline.has_passed():
            raise KnetError(
                f"rank {hvd.rank()}: {what}: not all ranks joined within "
                f"{timeout_s:g} s. "
                "Does every rank run the same script with the same arguments?"
            )
        time.sleep(0.001)
    result: Tensor = hvd.synchronize(handle)
    return result


def _digest(key: str, value: str) -> bytes:
    text = f"{key}={value}".encode()
    return hashlib.blake2b(text, digest_size=_ENTRY_BYTES).digest()


def check_agreement(
    facts: Mapping[str, object],
    what: str,
    process_set: hvd.ProcessSet = hvd.global_process_set,
    timeout_s: float = 30.0,
) -> None:
    """Raise on every rank unless all ranks hold the same facts in the same order.

    Args:
        facts: What must agree, such as ``{"conv1.weight": "fp32 [20, 1, 5, 5]"}``;
            compared by the text of the values.
        what: What the facts describe, for the message.
        process_set: The ranks that must agree.
        timeout_s: How long to wait for the other ranks.

    Raises:
        RankMismatchError: If they differ; names the first facts that do, with this
            rank's value and the ranks that have another.
        KnetError: If a rank does not take part in time.
    """
    if process_set.size() == 1:
        return
    rows = b"".join(_digest(key, str(value)) for key, value in facts.items())
    own = torch.frombuffer(bytearray(rows or b"\0" * _ENTRY_BYTES), dtype=torch.uint8)
    lengths = _gather(torch.tensor([own.numel()]), f"{what}.length", process_set, timeout_s)
    gathered = _gather(own, f"{what}.digest", process_set, timeout_s)
    tables = gathered.split(lengths.tolist())
    if all(torch.equal(table, own) for table in tables):
        return
    raise RankMismatchError(_describe(facts, what, tables, process_set))


def gather_texts(text: str, what: str, timeout_s: float = 30.0) -> list[str]:
    """Return the texts of all ranks, in their order, on every rank.

    Args:
        text: This rank's.
        what: What it is, the same on all ranks.
        timeout_s: How long to wait for the other ranks.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    own = torch.tensor(list(text.encode()), dtype=torch.uint8)
    lengths = _gather(
        torch.tensor([own.numel()]), f"{what}.length", hvd.global_process_set, timeout_s
    )
    gathered = _gather(own, f"{what}.text", hvd.global_process_set, timeout_s)
    return [bytes(part.tolist()).decode() for part in gathered.split(lengths.tolist())]


def largest(
    number: int,
    what: str,
    process_set: hvd.ProcessSet = hvd.global_process_set,
    timeout_s: float = 30.0,
) -> int:
    """Return the largest of the ranks' numbers, on every rank.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    if process_set.size() == 1:
        return number
    return int(_gather(torch.tensor([number]), what, process_set, timeout_s).max())


def _gather(tensor: Tensor, name: str, process_set: hvd.ProcessSet, timeout_s: float) -> Tensor:
    handle = hvd.allgather_async(tensor, name=f"knet_hvd.agreement.{name}", process_set=process_set)
    return wait(handle, name, timeout_s)


def _describe(
    facts: Mapping[str, object], what: str, tables: tuple[Tensor, ...], process_set: hvd.ProcessSet
) -> str:
    """Name the facts that differ, with the ranks on which they do."""
    ranks = process_set.ranks or list(range(process_set.size()))
    counts = {rank: t.numel() // _ENTRY_BYTES for rank, t in zip(ranks, tables, strict=True)}
    lines = [f"rank {hvd.rank()}: ranks disagree on {what}."]
    if len(set(counts.values())) > 1:
        lines.append(f"Number of entries by rank: {counts}.")
    keys = list(facts)
    differing = 0
    for index, key in enumerate(keys):
        span = slice(index * _ENTRY_BYTES, (index + 1) * _ENTRY_BYTES)
        mine = torch.frombuffer(bytearray(_digest(key, str(facts[key]))), dtype=torch.uint8)
        others = [
            rank
            for rank, table in zip(ranks, tables, strict=True)
            if not torch.equal(table[span], mine)
        ]
        if others and (differing := differing + 1) <= _MAX_SHOWN:
            lines.append(f"{key}: {facts[key]} here, something else on ranks {others}.")
    return " ".join(lines)

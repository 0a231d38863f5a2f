"""Check that ranks agree before they wait for each other."""

import hashlib
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from knet_hvd.collectives import Collectives, Handle
from knet_hvd.deadline import Deadline
from knet_hvd.errors import KnetError, RankMismatchError

_ENTRY_BYTES = 16
_MAX_SHOWN = 5


def wait(handle: Handle, what: str, timeout_s: float) -> Tensor:
    """Wait for an operation, but not for ever.

    Raises:
        KnetError: If some rank has not joined within ``timeout_s`` seconds, or is lost.
    """
    deadline = Deadline(timeout_s)
    while not handle.poll():
        if deadline.has_passed():
            raise KnetError(
                f"{what}: not all ranks joined within "
                f"{timeout_s:g} s. "
                "Does every rank run the same script with the same arguments?"
            )
        time.sleep(0.001)
    return handle.wait()


def _digest(key: str, value: str) -> bytes:
    text = f"{key}={value}".encode()
    return hashlib.blake2b(text, digest_size=_ENTRY_BYTES).digest()


def check_agreement(
    facts: Mapping[str, object],
    what: str,
    collectives: Collectives,
    timeout_s: float = 30.0,
) -> None:
    """Raise on every rank unless all ranks hold the same facts in the same order.

    Args:
        facts: What must agree, such as ``{"conv1.weight": "fp32 [20, 1, 5, 5]"}``;
            compared by the text of the values.
        what: What the facts describe, for the message.
        collectives: The ranks that must agree.
        timeout_s: How long to wait for the other ranks.

    Raises:
        RankMismatchError: If they differ; names the first facts that do, with this
            rank's value and the ranks that have another.
        KnetError: If a rank does not take part in time.
    """
    if collectives.size == 1:
        return
    rows = b"".join(_digest(key, str(value)) for key, value in facts.items())
    own = torch.frombuffer(bytearray(rows or b"\0" * _ENTRY_BYTES), dtype=torch.uint8)
    tables = _gather(own, what, collectives, timeout_s)
    if all(torch.equal(table, own) for table in tables):
        return
    raise RankMismatchError(_describe(facts, what, tables, collectives))


def gather_texts(
    text: str, what: str, collectives: Collectives, timeout_s: float = 30.0
) -> list[str]:
    """Return the texts of all ranks, in their order, on every rank.

    Args:
        text: This rank's.
        what: What it is, the same on all ranks.
        collectives: The ranks.
        timeout_s: How long to wait for the other ranks.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    own = torch.tensor(list(text.encode()), dtype=torch.uint8)
    parts = _gather(own, what, collectives, timeout_s)
    return [bytes(part.tolist()).decode(errors="replace") for part in parts]


def largest(number: int, what: str, collectives: Collectives, timeout_s: float = 30.0) -> int:
    """Return the largest of the ranks' numbers, on every rank.

    Raises:
        KnetError: If a rank does not take part in time.
    """
    handle = collectives.maximum(torch.tensor([number]), f"agreement.{what}")
    return int(wait(handle, f"rank {collectives.job_rank}: {what}", timeout_s))


def _gather(
    own: Tensor, what: str, collectives: Collectives, timeout_s: float
) -> tuple[Tensor, ...]:
    """Return the bytes [any length] of all ranks."""
    length = torch.tensor([own.numel()])
    ones = [1] * collectives.size
    handle = collectives.all_gather(length, ones, f"agreement.{what}.length")
    sizes = wait(handle, f"rank {collectives.job_rank}: {what}", timeout_s).tolist()
    handle = collectives.all_gather(own, sizes, f"agreement.{what}.bytes")
    gathered = wait(handle, f"rank {collectives.job_rank}: {what}", timeout_s)
    return torch.split(gathered, sizes)


def _describe(
    facts: Mapping[str, object], what: str, tables: tuple[Tensor, ...], collectives: Collectives
) -> str:
    """Name the facts that differ, with the ranks on which they do."""
    ranks = collectives.ranks
    counts = {rank: t.numel() // _ENTRY_BYTES for rank, t in zip(ranks, tables, strict=True)}
    lines = [f"rank {collectives.job_rank}: ranks disagree on {what}."]
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

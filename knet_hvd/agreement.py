"""Check that ranks agree before they wait for each other, whatever they talk over."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from knet_hvd.errors import RankMismatchError

_MAX_SHOWN = 5


class Ranks(Protocol):
    """Ranks that have to agree; all of them make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This process's number in the job."""

    @property
    def ranks(self) -> Sequence[int]:
        """Numbers of all of them, rising."""

    def gather_text(self, text: str, what: str) -> list[str]:
        """Return the texts of all ranks in the order of ``ranks``.

        Args:
            text: This rank's.
            what: What it is, for the message.

        Raises:
            KnetError: If a rank does not take part in time.
        """


def check_agreement(
    ranks: Ranks, facts: Mapping[str, object], what: str, *, same_names: bool = False
) -> None:
    """Raise on every rank that holds a fact which another rank has otherwise.

    Where all agree, each rank sends a digest of 32 bytes, however many facts there are.

    Args:
        ranks: Every one of them has to call.
        facts: What must agree, compared by the text of the values, such as
            ``{"link 0 -> 1, activations": "float32 [32, 20, 12, 12]"}``.
        what: What the facts describe, for the message.
        same_names: Whether all ranks must hold facts of the same names in the same
            order. Else a fact that only some ranks hold is compared among these.

    Raises:
        RankMismatchError: On the ranks that disagree, and on all ranks if one has sent
            something else than facts; names the first differences.
        KnetError: If a rank does not take part in time.
    """
    own = {key: str(value) for key, value in facts.items()}
    text = json.dumps(own)
    digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
    if len(set(ranks.gather_text(digest, what))) == 1:
        return
    texts = ranks.gather_text(text, what)
    received = {rank: _parse(each) for rank, each in zip(ranks.ranks, texts, strict=True)}
    unreadable = [rank for rank, table in received.items() if table is None]
    tables = {rank: table for rank, table in received.items() if table is not None}
    if unreadable:
        differences = [f"{_named(unreadable)} sent no facts: is it of another version?"]
    else:
        differences = [*(_names(own, tables) if same_names else ()), *_values(own, tables)]
    if differences:
        shown = " ".join(differences[:_MAX_SHOWN])
        raise RankMismatchError(f"rank {ranks.rank}: ranks disagree on {what}. {shown}")


def _parse(text: str) -> dict[str, str] | None:
    """Return facts by name; None if the text is anything else."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        return None
    return table


def _names(own: Mapping[str, str], tables: Mapping[int, Mapping[str, str]]) -> Iterator[str]:
    """Say which ranks hold facts of other names, or in another order."""
    counts = {rank: len(table) for rank, table in tables.items()}
    if len(set(counts.values())) > 1:
        yield f"Number of entries by rank: {counts}."
    for key, value in own.items():
        missing = [rank for rank, table in tables.items() if key not in table]
        if missing:
            yield f"{key}: {value} here, nothing on {_named(missing)}."
    moved = [rank for rank, t in tables.items() if t.keys() == own.keys() and [*t] != [*own]]
    if moved:
        yield f"The same entries are in another order on {_named(moved)}."


def _values(own: Mapping[str, str], tables: Mapping[int, Mapping[str, str]]) -> Iterator[str]:
    """Say which ranks hold other values."""
    for key, value in own.items():
        others: dict[str, list[int]] = {}
        for rank, table in tables.items():
            if table.get(key, value) != value:
                others.setdefault(table[key], []).append(rank)
        for other, having in others.items():
            yield f"{key}: {value} here, {other} on {_named(having)}."


def _named(ranks: Sequence[int]) -> str:
    return f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {list(ranks)}"

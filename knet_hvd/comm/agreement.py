"""Check that ranks agree before they wait for each other."""

import json
from collections.abc import Iterator, Mapping

from knet_hvd.comm.world import World
from knet_hvd.errors import RankMismatchError

_MAX_SHOWN = 5


def check_agreement(world: World, facts: Mapping[str, object], what: str) -> None:
    """Raise on every rank that holds a fact which another rank has otherwise.

    A fact that only some ranks hold, such as the form of a link between two of them,
    is compared among these.

    Args:
        world: All ranks; every rank has to call.
        facts: What must agree, compared by the text of the values, such as
            ``{"link 0 -> 1, activations": "float32 [32, 20, 12, 12]"}``.
        what: What the facts describe, for the message.

    Raises:
        RankMismatchError: On the ranks that disagree; names the first facts, with this
            rank's value and the other's.
        KnetError: If a rank does not take part in time.
    """
    own = {key: str(value) for key, value in facts.items()}
    texts = world.gather_text(json.dumps(own), f"{what} of all ranks")
    differing = list(_differences(own, texts))
    if differing:
        shown = " ".join(differing[:_MAX_SHOWN])
        raise RankMismatchError(f"rank {world.rank}: ranks disagree on {what}. {shown}")


def _differences(own: Mapping[str, str], texts: list[str]) -> Iterator[str]:
    tables: list[dict[str, str]] = [json.loads(text) for text in texts]
    for key, value in own.items():
        others: dict[str, list[int]] = {}
        for rank, table in enumerate(tables):
            if key in table and table[key] != value:
                others.setdefault(table[key], []).append(rank)
        for other, ranks in others.items():
            named = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks}"
            yield f"{key}: {value} here, {other} on {named}."

"""The names under which gradients cross: Horovod takes each name once at a time."""

from collections.abc import MutableMapping
from weakref import WeakValueDictionary

from knet_hvd.errors import KnetError

_owners: MutableMapping[tuple[int, str], object] = WeakValueDictionary()
"""Whose gradient crosses, by process set and name."""


def claim(process_set_id: int, name: str, owner: object) -> None:
    """Note that a gradient of this owner crosses under this name until ``release``.

    Raises:
        KnetError: If one of another owner does.
    """
    if _owners.setdefault((process_set_id, name), owner) is not owner:
        raise KnetError(
            f"two optimizers exchange a gradient of the name {name!r} at once. "
            "Give each its own names, here and in hvd.DistributedOptimizer: "
            'named = [(f"critic.{name}", p) for name, p in critic.named_parameters()]'
        )


def release(process_set_id: int, name: str) -> None:
    """Note that nothing crosses under this name any more."""
    _owners.pop((process_set_id, name), None)

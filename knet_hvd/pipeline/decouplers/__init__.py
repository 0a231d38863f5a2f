"""Decouplers: where a stage's gradient comes from, one published method a file."""

from collections.abc import Mapping
from types import MappingProxyType

from knet_hvd.pipeline.decouplers.backprop import Backprop
from knet_hvd.pipeline.decouplers.base import Decoupler, Use
from knet_hvd.pipeline.decouplers.delayed import Delayed
from knet_hvd.pipeline.decouplers.local import Local
from knet_hvd.pipeline.decouplers.synthetic import Conditioned, Synthetic

DECOUPLERS: Mapping[str, type[Decoupler]] = MappingProxyType(
    {kind.name: kind for kind in (Backprop, Synthetic, Conditioned, Local, Delayed)}
)
"""All decouplers by name."""

__all__ = [
    "DECOUPLERS",
    "Backprop",
    "Conditioned",
    "Decoupler",
    "Delayed",
    "Local",
    "Synthetic",
    "Use",
    "decoupler_named",
]


def decoupler_named(name: str) -> type[Decoupler]:
    """Return the class of a decoupler's settings.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in DECOUPLERS:
        raise ValueError(f"decoupler: expected one of {', '.join(DECOUPLERS)}, got {name!r}")
    return DECOUPLERS[name]

"""All ranks of MPI, as checkpoints need them."""

from collections.abc import Callable, Sequence

from knet_hvd.comm import World

_DISK_FACTOR = 20
"""How many timeouts to wait for ranks that read or write shards."""
_STEP_FACTOR = 1.5
"""How many timeouts to wait for stages that are some steps late."""


class WorldRanks:
    """Implement ``knet_hvd.checkpoint.Ranks``."""

    def __init__(self, world: World, on_wait: Callable[[], None] | None = None) -> None:
        """Take all ranks.

        Args:
            world: All ranks.
            on_wait: Called again and again while this rank waits for others.
        """
        self._world = world
        self._on_wait = on_wait

    @property
    def rank(self) -> int:
        """Return the number of this process."""
        return self._world.rank

    @property
    def size(self) -> int:
        """Return the number of processes."""
        return self._world.size

    def gather_texts(self, text: str, what: str, *, after_disk: bool = False) -> list[str]:
        """Return the texts of all ranks: see ``Ranks``."""
        factor = _DISK_FACTOR if after_disk else _STEP_FACTOR
        return self._world.gather_text(text, what, factor, self._on_wait)

    def start_maximum(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """Begin to compare numbers: see ``Ranks``."""
        return self._world.start_maximum(values, "flags of all ranks", _STEP_FACTOR, self._on_wait)

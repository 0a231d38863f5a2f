"""What checkpoints need of the ranks of a job, whatever these talk over."""

from collections.abc import Callable, Sequence
from typing import Protocol


class Ranks(Protocol):
    """All ranks of a job; every rank has to make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """Return the number of this process."""

    @property
    def size(self) -> int:
        """Return the number of processes."""

    def gather_texts(self, text: str, what: str, *, after_disk: bool = False) -> list[str]:
        """Return the texts of all ranks, by rank.

        Args:
            text: This rank's.
            what: What it is, the same on all ranks.
            after_disk: Whether ranks come from reading or writing shards, so that one
                which is late need not be lost.

        Raises:
            KnetError: If a rank is lost.
        """

    def start_maximum(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """Begin to compare numbers, and return what waits for their maxima over ranks.

        Args:
            values: This rank's, as many on all ranks.
        """

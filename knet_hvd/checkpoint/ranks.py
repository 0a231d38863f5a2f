"""Communication that checkpoints need, independent of MPI or Horovod."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from knet_hvd.errors import CheckpointError


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


def raise_on_all(ranks: Ranks, error: str, text: str = "") -> list[str]:
    """Raise on every rank if any has an error; return the texts of all ranks.

    Args:
        ranks: All ranks of the job; every rank has to call.
        error: What is wrong on this rank; empty if nothing is.
        text: This rank's.

    Raises:
        CheckpointError: With the first rank's error.
    """
    errors = ranks.gather_texts(error, "checkpoint errors", after_disk=True)
    found = [each for each in errors if each]
    if found:
        raise CheckpointError(found[0])
    return ranks.gather_texts(text, "checkpoint texts", after_disk=True)


@dataclass(frozen=True, slots=True)
class Flags:
    """Whether it holds on any rank.

    Attributes:
        stop: A signal asked to stop.
        busy: Something is still being written.
        failed: What was being written could not be.
    """

    stop: bool
    busy: bool
    failed: bool


class StatusExchange:
    """Bring the flags of all ranks together, so that all act in the same step.

    Twelve bytes start on their way before a step's forward pass and are there when it
    is over, or some steps later: ranks that need not wait for each other in a step are
    not made to. A flag is seen in the step after the one in which it was raised, or so
    many steps later.
    """

    def __init__(self, ranks: Ranks, lag: int = 0) -> None:
        """Exchange nothing yet.

        Args:
            ranks: All ranks of the job.
            lag: Steps by which a rank may be ahead of another.
        """
        self._ranks = ranks
        self._lag = lag
        self._under_way: deque[Callable[[], list[int]]] = deque()
        self._num_started = 0
        self._current_from = 0

    def start(self, flags: Flags) -> None:
        """Send this rank's flags."""
        self._under_way.append(self._ranks.start_maximum(_numbers(flags)))
        self._num_started += 1

    def finish(self) -> Flags:
        """Return the flags that all ranks sent ``lag`` calls of ``start`` ago."""
        if len(self._under_way) <= self._lag:
            return Flags(stop=False, busy=True, failed=False)
        number = self._num_started - len(self._under_way)
        stop, busy, failed = (bool(value) for value in self._under_way.popleft()())
        flags = Flags(stop, busy, failed)
        return flags if number >= self._current_from else replace(flags, busy=True)

    def begin(self) -> None:
        """Begin something that all ranks may be busy with.

        Flags that are under way do not know of it; they will count as busy.
        """
        self._current_from = self._num_started

    def exchange(self, flags: Flags) -> Flags:
        """Return the present flags of all ranks; these wait for each other."""
        text = " ".join(map(str, _numbers(flags)))
        rows = self._ranks.gather_texts(text, "checkpoint flags")
        columns = zip(*(map(int, row.split()) for row in rows), strict=True)
        stop, busy, failed = (any(column) for column in columns)
        return Flags(stop, busy, failed)

    def close(self) -> None:
        """Wait for what is under way."""
        while self._under_way:
            self._under_way.popleft()()


def _numbers(flags: Flags) -> list[int]:
    return [int(flags.stop), int(flags.busy), int(flags.failed)]

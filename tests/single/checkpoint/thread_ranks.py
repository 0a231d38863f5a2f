"""Ranks that are threads of one process, for tests of what all ranks do together."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

LIMIT_S = 60.0


class ThreadRanks:
    """Implement ``knet_hvd.checkpoint.Ranks`` among threads."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]) -> None:
        self.rank = rank
        self.size = size
        self._shared = shared

    def gather_texts(self, text: str, what: str, *, after_disk: bool = False) -> list[str]:
        self._shared["texts"][self.rank] = text
        self._shared["barrier"].wait(LIMIT_S)
        texts = list(self._shared["texts"])
        self._shared["barrier"].wait(LIMIT_S)
        return texts

    def start_maximum(self, values: Sequence[int]) -> Callable[[], list[int]]:
        own = " ".join(map(str, values))

        def finish() -> list[int]:
            rows = [map(int, row.split()) for row in self.gather_texts(own, "maximum")]
            return [max(column) for column in zip(*rows, strict=True)]

        return finish


def run_on_ranks(function: Callable[[ThreadRanks], None], size: int) -> list[BaseException | None]:
    """Call a function on each rank; return what each raised."""
    shared = {"texts": [""] * size, "barrier": threading.Barrier(size)}
    raised: list[BaseException | None] = [None] * size

    def run(rank: int) -> None:
        try:
            function(ThreadRanks(rank, size, shared))
        except BaseException as error:
            raised[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised

"""Progress bars, and byte counts for people."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TextIO, TypeVar, overload

from knet_hvd.errors import KnetError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ProgressBar(Protocol[T_co]):
    """Show how far a loop has come: what is used of a tqdm bar."""

    def __enter__(self) -> "ProgressBar[T_co]":
        """Return the bar."""

    def __exit__(self, *_: object) -> bool | None:
        """Close the bar."""

    def __iter__(self) -> Iterator[T_co]:
        """Pass the items on and count them."""

    def update(self, n: float | None = 1) -> bool | None:
        """Count `n` items, where the bar was made from a total."""

    def set_postfix(
        self, ordered_dict: Any = None, refresh: bool | None = True, **values: Any
    ) -> None:
        """Show values, such as the loss, after the bar."""

    def close(self) -> None:
        """Leave the bar as it is and end its line."""


class _Lines:
    """End every state of the bar with a new line: launchers hold back what has none."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        state = text.strip("\r\n ")
        if state:
            self._stream.write(state + "\n")

    def flush(self) -> None:
        self._stream.flush()


@overload
def progress(
    items: Iterable[T], *, desc: str, rank: int, total: int | None = None
) -> ProgressBar[T]: ...


@overload
def progress(
    items: None = None, *, desc: str, rank: int, total: int | None = None
) -> ProgressBar[int]: ...


def progress(
    items: Iterable[Any] | None = None, *, desc: str, rank: int, total: int | None = None
) -> ProgressBar[Any]:
    """Show a progress bar on standard error, on rank 0 only.

    Where standard error is no terminal, as in a batch job's log, the bar is
    written every 10 seconds at most, on a line of its own.

    Args:
        items: What to iterate over; None to count with `update`.
        desc: The text before the bar.
        rank: This process; all but rank 0 show nothing.
        total: The number of items, where `items` has no length.

    Returns:
        A bar that yields the items, on every rank.

    Raises:
        KnetError: The package `tqdm` is not installed.
    """
    try:
        from tqdm import tqdm  # type: ignore[import-untyped]
    except ImportError as error:
        raise KnetError("progress bars need the package tqdm: pip install tqdm") from error
    bar: ProgressBar[Any] = tqdm(
        items,
        desc=desc,
        total=total,
        disable=rank != 0,
        file=sys.stderr if sys.stderr.isatty() else _Lines(sys.stderr),
        mininterval=0.1 if sys.stderr.isatty() else 10.0,
        dynamic_ncols=True,
    )
    return bar


def format_bytes(num_bytes: float) -> str:
    """Write a number of bytes with three to four digits and a binary unit.

    Args:
        num_bytes: The number, 0 or more; it may be a mean.

    Returns:
        For instance "512 B" or "1.50 KiB" (1 KiB is 1,024 bytes).

    Raises:
        ValueError: The number is negative or not finite.
    """
    if not 0 <= num_bytes < float("inf"):
        raise ValueError(f"num_bytes must be 0 or more and finite, got {num_bytes}")
    if num_bytes < 1024:
        return f"{num_bytes:.4g} B"
    value = float(num_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        # Not < 1024: 1023.99 KiB would be shown as "1024 KiB".
        if value < 1023.95 or unit == "TiB":
            break
    return f"{value:.{2 if value < 99.995 else 1}f} {unit}"

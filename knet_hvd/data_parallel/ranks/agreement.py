"""Ranks that talk over collectives, as ``check_agreement`` needs them."""

import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from knet_hvd.collectives import Collectives, Handle
from knet_hvd.deadline import Deadline
from knet_hvd.errors import KnetError

if TYPE_CHECKING:
    from knet_hvd.comm.roll_call import RollCall

TIMEOUT_VARIABLE = "KNET_START_TIMEOUT_S"
"""Environment variable: how long ranks wait for each other before they train."""

_TIMEOUT_S = 30.0

_num_waits: Counter[str] = Counter()


def start_timeout_s(timeout_s: float | None = None) -> float:
    """Return how many seconds to wait for other ranks before training.

    Args:
        timeout_s: What a caller asked for; if None, ``KNET_START_TIMEOUT_S``, or 30.

    Raises:
        ValueError: If it is not a number above 0.
    """
    text = str(timeout_s) if timeout_s is not None else os.environ.get(TIMEOUT_VARIABLE)
    if not text:
        return _TIMEOUT_S
    name = "timeout_s" if timeout_s is not None else TIMEOUT_VARIABLE
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise ValueError(f"{name}: expected seconds > 0, got {text!r}")
    return seconds


class CollectiveRanks:
    """Implement ``knet_hvd.agreement.Ranks`` over collectives."""

    def __init__(self, collectives: Collectives, timeout_s: float | None = None) -> None:
        """Take the ranks, and how long to wait for one; see ``start_timeout_s``."""
        self._collectives = collectives
        self._timeout_s = start_timeout_s(timeout_s)

    @property
    def rank(self) -> int:
        """See ``Ranks.rank``."""
        return self._collectives.job_rank

    @property
    def ranks(self) -> Sequence[int]:
        """See ``Ranks.ranks``."""
        return self._collectives.ranks

    def gather_text(self, text: str, what: str) -> list[str]:
        """See ``Ranks.gather_text``."""
        own = torch.tensor(list(text.encode()), dtype=torch.uint8)
        ones = [1] * self._collectives.size
        length = torch.tensor([own.numel()])
        handle = self._collectives.all_gather(length, ones, f"agreement.{what}.length")
        sizes = self._wait(handle, what).tolist()
        handle = self._collectives.all_gather(own, sizes, f"agreement.{what}.text")
        parts = torch.split(self._wait(handle, what), sizes)
        return [bytes(part.tolist()).decode(errors="replace") for part in parts]

    def maximum(self, number: int, what: str) -> int:
        """Return the largest of the ranks' numbers, on every rank.

        Raises:
            KnetError: If a rank does not take part in time.
        """
        own = torch.tensor([number])
        return int(self._wait(self._collectives.maximum(own, f"agreement.{what}"), what))

    def _wait(self, handle: Handle, what: str) -> Tensor:
        """Wait for an operation, but not for ever."""
        _num_waits[what] += 1
        if handle.poll():
            return handle.wait()
        roll_call = _roll_call(self._collectives, f"{what} {_num_waits[what]}")
        deadline = Deadline(self._timeout_s)
        while not handle.poll():
            if deadline.has_passed():
                raise KnetError(
                    f"rank {self.rank}: {what}: not all ranks joined within "
                    f"{self._timeout_s:g} s{self._missing(roll_call)}. Does every rank run the "
                    "same script with the same arguments? If one only comes late, set "
                    f"{TIMEOUT_VARIABLE} to more seconds"
                )
            if roll_call is not None:
                roll_call.tick()
            time.sleep(0.001)
        return handle.wait()

    def _missing(self, roll_call: "RollCall | None") -> str:
        """Name the ranks that did not come, where that can be found out."""
        absent = roll_call.absent() if roll_call is not None else []
        absent = [rank for rank in absent if rank in self.ranks]
        return f" (missing: {', '.join(map(str, absent))})" if absent else ""


def _roll_call(collectives: Collectives, what: str) -> "RollCall | None":
    """Return a roll call over MPI; None where ranks are not MPI's."""
    if not collectives.are_mpi_ranks:
        return None
    try:
        from knet_hvd.comm.roll_call import RollCall
    except ImportError:  # mpi4py is not needed for anything else here
        return None
    return RollCall(what)

"""What ranks tell each other in every step: one small maximum, hidden behind it."""

from dataclasses import dataclass

import horovod.torch as hvd
import torch


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


class FlagExchange:
    """Bring the flags of all ranks together, so that all act in the same step.

    Twelve bytes start on their way before a step's forward pass and are there when the
    optimizer is done: ranks wait for each other in that step anyway. A flag is seen in
    the step after the one in which it was raised.
    """

    def __init__(self) -> None:
        """Exchange nothing yet."""
        self._handle: int | None = None
        self._own: torch.Tensor | None = None

    def start(self, flags: Flags) -> None:
        """Send this rank's flags."""
        own = torch.tensor([flags.stop, flags.busy, flags.failed], dtype=torch.int32)
        self._own = own
        if hvd.size() > 1:
            self._handle = hvd.allreduce_async(
                own, op=hvd.Max, name="knet_hvd.job_flags"
            )

    def finish(self) -> Flags:
        """Return the flags of all ranks; after ``start``."""
        result = self._own if self._handle is None else hvd.synchronize(self._handle)
        self._handle = None
        assert result is not None, "finish() comes after start()"
        stop, busy, failed = (bool(value) for value in result.tolist())
        return Flags(stop, busy, failed)

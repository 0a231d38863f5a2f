"""A bucket's reduction while it waits for an operation."""

from dataclasses import dataclass

import torch

from knet_hvd.collectives import Handle
from knet_hvd.data_parallel.exchanges.base import Reduction


@dataclass(slots=True)
class InFlight:
    """A bucket's reduction, and the operation whose result it needs next."""

    reduction: Reduction
    handle: Handle | None

    @property
    def is_done(self) -> bool:
        """Whether the reduction has ended."""
        return self.handle is None

    def wait(self) -> None:
        """Wait for the operation in flight, and continue the reduction."""
        if self.handle is not None:
            with torch.profiler.record_function("knet_hvd::exchange"):
                result = self.handle.wait()
            try:
                self.handle = self.reduction.send(result)
            except StopIteration:
                self.handle = None

    def advance(self) -> None:
        """Continue as long as operations have ended."""
        while self.handle is not None and self.handle.poll():
            self.wait()

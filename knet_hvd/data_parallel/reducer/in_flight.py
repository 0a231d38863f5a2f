"""One bucket's reduction on its way."""

from dataclasses import dataclass

import torch

from knet_hvd.collectives import Handle
from knet_hvd.data_parallel.exchanges.base import Reduction
from knet_hvd.data_parallel.reducer.codec_stream import CallersStream


@dataclass(slots=True)
class InFlight:
    """A bucket's reduction, and the operation whose result it needs next.

    Attributes:
        reduction: What is left of it.
        handle: The operation; None once the reduction has ended.
        stream: Where it runs.
    """

    reduction: Reduction
    handle: Handle | None
    stream: CallersStream

    @classmethod
    def start(cls, reduction: Reduction, stream: CallersStream) -> "InFlight":
        """Run a reduction up to its first operation."""
        with stream.running():
            return cls(reduction, next(reduction), stream)

    @property
    def is_done(self) -> bool:
        """Whether the reduction has ended."""
        return self.handle is None

    def wait(self) -> None:
        """Wait for the operation in flight, and continue the reduction."""
        if self.handle is None:
            return
        with self.stream.running():
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

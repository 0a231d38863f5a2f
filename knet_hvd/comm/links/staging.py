"""Copies between a rank's device and the buffers that MPI reads and writes.

MPI gets the host's memory only. On a GPU the buffers are pinned, and copies run on a stream of
their own: the host waits for a copy and for what makes the tensor, but not for what else is
queued on the GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Staging:
    """Copy tensors of a device.

    Attributes:
        device: Where tensors come from and go to.
    """

    def __init__(self, device: torch.device) -> None:
        """Take the device; on the CPU nothing is prepared."""
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def pins(self) -> bool:
        """Return whether buffers are to be pinned."""
        return self._stream is not None

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Copy to the host within; at the end all is there, as MPI needs it."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()

    def arriving(self, copy: Callable[[], Tensor]) -> Tensor:
        """Return what a copy to the device returns; afterwards its source may be overwritten.

        Args:
            copy: Makes a tensor on the device of what is in a buffer.
        """
        if self._stream is None:
            return copy()
        with torch.cuda.stream(self._stream):
            tensor = copy()
        self._stream.synchronize()
        # The allocator would else hand the memory out on our stream while kernels read it.
        tensor.record_stream(torch.cuda.current_stream(self.device))
        return tensor

"""A buffer of a link, and the message that is in it."""

import torch
from mpi4py import MPI


class Slot:
    """Hold a buffer and the request that uses it.

    Attributes:
        buffer: uint8 [bytes] on the CPU.
        array: The same memory for MPI.
        request: Null while nothing is under way.
        status: Of the latest request that is over.
    """

    def __init__(self, num_bytes: int, pinned: bool = False) -> None:
        """Take the buffer, pinned for copies to and from a GPU or not."""
        self.request: MPI.Request = MPI.REQUEST_NULL
        self.status = MPI.Status()
        self.buffer = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=pinned)
        self.array = self.buffer.numpy()

    def grow(self, num_bytes: int) -> None:
        """Make room for a message; nothing may be under way.

        Args:
            num_bytes: The buffer has at least as many afterwards.
        """
        if self.buffer.numel() < num_bytes:
            # Zeros, since gaps between frames cross as well.
            self.buffer = torch.zeros(num_bytes, dtype=torch.uint8)
            self.array = self.buffer.numpy()

    def done(self) -> bool:
        """Return whether nothing is under way."""
        # A completed request is null, and a test of that would clear the status.
        done: bool = self.request == MPI.REQUEST_NULL or self.request.Test(self.status)
        return done

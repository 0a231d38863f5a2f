"""Buffers that last from one training step to the next."""

import torch
from torch import Tensor

_SETTLING_BYTES = 31 * 2**20


class BufferPool:
    """Hand out the same memory under the same name in every step.

    Memory fresh from the kernel is cleared page by page when it is first written, which
    takes longer than encoding into it.
    """

    def __init__(self) -> None:
        """Make an empty pool, and have the allocator keep what others free."""
        self._buffers: dict[str, Tensor] = {}
        # glibc returns large blocks to the kernel when they are freed, until one just
        # below 32 MiB was: then it keeps blocks up to that size (mallopt(3), on
        # M_MMAP_THRESHOLD). Horovod allocates its outputs again in every step, and on
        # 4 ranks an exchange of AlexNet's gradients spent a fifth of its time on that.
        torch.empty(_SETTLING_BYTES, dtype=torch.uint8)

    def get(self, name: str, numel: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the buffer of that name; what it holds is lost.

        Args:
            name: Its user; what is still being sent must have a name of its own.
            numel: Values in it.
            dtype: Their type.
            device: Where it lies.

        Returns:
            A contiguous tensor [numel].
        """
        key = f"{name} {dtype} {device}"
        buffer = self._buffers.get(key)
        if buffer is None or buffer.numel() < numel:
            buffer = self._buffers[key] = torch.empty(numel, dtype=dtype, device=device)
        return buffer.narrow(0, 0, numel)

    def clear(self) -> None:
        """Forget all buffers: the next step's have other names."""
        self._buffers.clear()

"""What both ends of a link agree on."""

import math
import operator
from dataclasses import dataclass

import torch

from knet_hvd.comm.encoding_names import Encoding
from knet_hvd.comm.links.encodings import check_dtype, max_payload_bytes
from knet_hvd.comm.links.frames import HEADER_BYTES
from knet_hvd.errors import KnetError


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Say what both ends of a link have to agree on.

    Attributes:
        name: What the link carries, for messages.
        source: The rank that sends.
        target: The rank that receives.
        tag: Tells apart the links between two ranks.
        shape: The largest tensor; those that cross have as many dimensions, none larger.
        encoding: How values cross.
        credits: Frames that either end holds.
        dtype: Of the tensors.

    Raises:
        TypeError: If the encoding is not for this dtype.
        ValueError: If a dimension is below 1, or there is no credit.
    """

    name: str
    source: int
    target: int
    tag: int
    shape: tuple[int, ...]
    encoding: Encoding = "fp32"
    credits: int = 4
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        """Refuse links on which nothing could cross."""
        if any(size < 1 for size in self.shape):
            raise ValueError(f"shape: expected positive numbers, got {self.shape}")
        if self.credits < 1:
            raise ValueError(f"credits: expected at least 1, got {self.credits}")
        check_dtype(self.dtype, self.encoding)

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of a buffer for one frame."""
        num_values = math.prod(self.shape)
        return HEADER_BYTES + max_payload_bytes(num_values, self.encoding, self.dtype)

    def facts(self) -> dict[str, str]:
        """Return what the other end must hold as well, for `check_agreement`."""
        name = f"link {self.source} -> {self.target}, {self.name}"
        dtype = str(self.dtype).removeprefix("torch.")
        return {name: f"{dtype} {list(self.shape)} as {self.encoding}, {self.credits} credits"}

    def __str__(self) -> str:
        return f"{self.name} from rank {self.source} to rank {self.target}"

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise unless a tensor of that shape may cross.

        Raises:
            KnetError: If it may not.
        """
        if len(shape) != len(self.shape) or any(map(operator.gt, shape, self.shape)):
            raise KnetError(f"{self}: expected {list(self.shape)} or smaller, got {list(shape)}")

    def check_dtype(self, dtype: torch.dtype) -> None:
        """Raise unless tensors of that dtype may cross.

        Raises:
            KnetError: If they may not.
        """
        if dtype != self.dtype:
            raise KnetError(f"{self}: expected {self.dtype}, got {dtype}")

"""What both ends of a link agree on."""

import math
from dataclasses import dataclass

from knet_hvd.comm.encoding_names import Encoding
from knet_hvd.comm.encodings import max_payload_bytes
from knet_hvd.comm.frames import HEADER_BYTES
from knet_hvd.errors import KnetError


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """Say what both ends of a link have to agree on.

    Attributes:
        name: What the link carries, for messages.
        source: The rank that sends.
        target: The rank that receives.
        tag: Tells apart the links between two ranks.
        shape: The largest tensor; a frame may have fewer rows, but no other shape.
        encoding: How values cross.
        credits: Frames that either end holds.

    Raises:
        ValueError: If the shape is empty or there is no credit.
    """

    name: str
    source: int
    target: int
    tag: int
    shape: tuple[int, ...]
    encoding: Encoding = "fp32"
    credits: int = 4

    def __post_init__(self) -> None:
        """Refuse links on which nothing could cross."""
        if not self.shape or min(self.shape) < 1:
            raise ValueError(f"shape: expected positive numbers, got {self.shape}")
        if self.credits < 1:
            raise ValueError(f"credits: expected at least 1, got {self.credits}")

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of a buffer for one frame."""
        num_values = math.prod(self.shape)
        return HEADER_BYTES + max_payload_bytes(num_values, self.encoding)

    def facts(self) -> dict[str, str]:
        """Return what the other end must hold as well, for `check_agreement`."""
        name = f"link {self.source} -> {self.target}, {self.name}"
        return {name: f"float32 {list(self.shape)} as {self.encoding}, {self.credits} credits"}

    def __str__(self) -> str:
        return f"{self.name} from rank {self.source} to rank {self.target}"

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise unless a tensor of that shape may cross.

        Raises:
            KnetError: If it may not.
        """
        if shape[1:] != self.shape[1:] or not 1 <= shape[0] <= self.shape[0]:
            raise KnetError(f"{self}: expected {list(self.shape)} or fewer rows, got {list(shape)}")

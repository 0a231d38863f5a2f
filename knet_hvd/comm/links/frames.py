"""Frames: a header of 64 bytes that says what the payload is.

| bytes | field                                            |
|-------|--------------------------------------------------|
| 0-3   | the letters KNET                                 |
| 4-7   | version, encoding, dtype, number of dimensions   |
| 8-15  | step                                             |
| 16-19 | microbatch                                       |
| 20-27 | bytes of the payload                             |
| 28-59 | up to 8 dimensions of the shape                  |
| 60-63 | checksum of the targets, 0 for none              |

All numbers are little-endian, so that unlike machines understand each other. The number
of an encoding or dtype is its place in `ENCODINGS` or `DTYPES`.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from knet_hvd.comm.encoding_names import ENCODINGS, Encoding
from knet_hvd.comm.links.encodings import DTYPES, may_hold
from knet_hvd.errors import KnetError

HEADER_BYTES = 64
MAX_DIMENSIONS = 8
_HEADER = struct.Struct("<4s4BQIQ9I")
_MAGIC = b"KNET"
_VERSION = 2
_PAYLOAD_FIELD = 7
"""Where the bytes of the payload stand among the fields of the header."""


@dataclass(frozen=True, slots=True)
class Header:
    """Say what a frame holds.

    Attributes:
        step: The training step of the tensor.
        microbatch: Its microbatch.
        shape: Its shape.
        encoding: How the payload is written.
        payload_bytes: The length of the payload.
        dtype: The tensor's dtype.
        checksum: Of the targets that belong to the tensor, below 2^32; 0 for none.
    """

    step: int
    microbatch: int
    shape: tuple[int, ...]
    encoding: Encoding
    payload_bytes: int
    dtype: torch.dtype = torch.float32
    checksum: int = 0


def padded_bytes(num_bytes: int) -> int:
    """Return a length from which on a further frame is aligned for every dtype."""
    return (num_bytes + 7) // 8 * 8


def split_frames(message: Tensor) -> Iterator[Tensor]:
    """Yield the frames of a message that holds several, each padded to `padded_bytes`.

    Args:
        message: uint8 [bytes received] on the CPU.

    Raises:
        KnetError: If a frame is longer than what is left.
    """
    start = 0
    while start < message.numel():
        left = message[start:]
        if left.numel() < HEADER_BYTES:
            raise KnetError(f"a frame has at least {HEADER_BYTES} bytes, not {left.numel()}")
        end = HEADER_BYTES + int(_HEADER.unpack_from(left.numpy().data, 0)[_PAYLOAD_FIELD])
        if end > left.numel():
            raise KnetError(f"expected a frame of {end} bytes, got {left.numel()}")
        yield left[:end]
        start += padded_bytes(end)


def write_header(header: Header, buffer: Tensor) -> None:
    """Write a header to the start of a frame.

    Args:
        header: What the frame holds.
        buffer: uint8 [64 or more] on the CPU.

    Raises:
        ValueError: If the tensor has more than 8 dimensions.
    """
    rank = len(header.shape)
    if rank > MAX_DIMENSIONS:
        raise ValueError(f"shape: expected at most {MAX_DIMENSIONS} dimensions, got {rank}")
    _HEADER.pack_into(
        buffer.numpy().data,
        0,
        _MAGIC,
        _VERSION,
        ENCODINGS.index(header.encoding),
        DTYPES.index(header.dtype),
        rank,
        header.step,
        header.microbatch,
        header.payload_bytes,
        *header.shape,
        *(0,) * (MAX_DIMENSIONS - rank),
        header.checksum,
    )


def read_header(frame: Tensor) -> Header:
    """Return the header of a received frame.

    Args:
        frame: uint8 [bytes received] on the CPU.

    Raises:
        KnetError: If the bytes are no frame of this version.
    """
    if frame.numel() < HEADER_BYTES:
        raise KnetError(f"a frame has at least {HEADER_BYTES} bytes, not {len(frame)}")
    magic, version, encoding, dtype, rank, step, microbatch, num_bytes, *shape, checksum = (
        _HEADER.unpack_from(frame.numpy().data, 0)
    )
    known = encoding < len(ENCODINGS) and dtype < len(DTYPES) and rank <= MAX_DIMENSIONS
    if (magic, version) != (_MAGIC, _VERSION) or not known:
        raise KnetError(
            f"expected a frame of version {_VERSION}, got one that begins with "
            f"{bytes(frame[:8].tolist())!r}: do all ranks run the same release?"
        )
    if num_bytes != frame.numel() - HEADER_BYTES:
        raise KnetError(
            f"expected a payload of {num_bytes} bytes, got {frame.numel() - HEADER_BYTES}"
        )
    header = Header(
        step,
        microbatch,
        tuple(shape[:rank]),
        ENCODINGS[encoding],
        num_bytes,
        DTYPES[dtype],
        checksum,
    )
    _check_payload(header)
    return header


def _check_payload(header: Header) -> None:
    """Raise unless shape, dtype and encoding fit each other and the payload."""
    num_values = math.prod(header.shape)
    fits = header.encoding == "raw" or header.dtype == torch.float32
    if not fits or not may_hold(header.payload_bytes, num_values, header.encoding, header.dtype):
        raise KnetError(
            f"expected a payload for {header.dtype} {list(header.shape)} as {header.encoding}, "
            f"got {header.payload_bytes} bytes"
        )

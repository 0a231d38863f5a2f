"""What crosses a link: headers and the encodings of values."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.comm.encoding_names import ENCODINGS
from knet_hvd.comm.links.encodings import DTYPES, decode, encode, max_payload_bytes, may_hold
from knet_hvd.comm.links.frames import Header, read_header, write_header
from knet_hvd.errors import KnetError

SHAPES = st.lists(st.integers(0, 7), max_size=5)


def round_trip(tensor: torch.Tensor, encoding: str) -> tuple[torch.Tensor, str, int]:
    out = torch.full((max_payload_bytes(tensor.numel(), encoding),), 255).byte()
    taken, num_bytes = encode(tensor, encoding, out)
    return decode(out[:num_bytes], taken, tensor.shape), taken, num_bytes


@given(shape=SHAPES, seed=st.integers(0, 999), zeros=st.floats(0, 1))
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_round_trip(encoding: str, shape: list[int], seed: int, zeros: float) -> None:
    torch.manual_seed(seed)
    tensor = torch.randn(shape) * (torch.rand(shape) >= zeros)
    decoded, taken, num_bytes = round_trip(tensor, encoding)
    assert may_hold(num_bytes, tensor.numel(), taken, torch.float32)
    expected = tensor.bfloat16().float() if encoding == "bf16" else tensor
    assert torch.equal(decoded, expected)
    assert num_bytes <= max_payload_bytes(tensor.numel(), encoding)


def test_layouts_that_are_not_contiguous() -> None:
    images = torch.randn(3, 5, 4, 2).to(memory_format=torch.channels_last)
    for tensor in (images, torch.randn(6, 4).t(), torch.randn(4, 8)[:, ::2]):
        assert torch.equal(round_trip(tensor, "fp32")[0], tensor)
        sparse = tensor.relu()
        assert torch.equal(round_trip(sparse, "relu-sparse")[0], sparse)
    decoded = round_trip(images, "fp32")[0]
    assert decoded.is_contiguous(memory_format=torch.channels_last)


def test_zeros_are_left_out() -> None:
    tensor = torch.zeros(64, 100)
    tensor[:16] = 1.0
    _, taken, num_bytes = round_trip(tensor, "relu-sparse")
    assert taken == "relu-sparse"
    assert num_bytes == 6400 // 8 + 4 * 1600
    _, taken, num_bytes = round_trip(torch.ones(64, 100), "relu-sparse")
    assert (taken, num_bytes) == ("fp32", 4 * 6400)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_values_that_are_not_finite_arrive(encoding: str) -> None:
    tensor = torch.zeros(100)
    tensor[3], tensor[5] = torch.nan, torch.inf
    decoded = round_trip(tensor, encoding)[0]
    assert decoded[3].isnan()
    assert decoded[5] == torch.inf


def test_other_dtypes_and_lengths_are_refused() -> None:
    out = torch.empty(100, dtype=torch.uint8)
    for encoding in ("fp32", "bf16", "relu-sparse"):
        message = f"expected torch.float32 for {encoding}, got torch.float64: take raw"
        with pytest.raises(TypeError, match=message):
            encode(torch.ones(3, dtype=torch.float64), encoding, out)
        with pytest.raises(TypeError, match=message):
            max_payload_bytes(3, encoding, torch.float64)
    with pytest.raises(TypeError, match=r"one of torch.float32, .*, got torch.complex64"):
        encode(torch.ones(3, dtype=torch.complex64), "raw", out)
    with pytest.raises(ValueError, match="expected 16 bytes, got 12 bytes"):
        decode(out[:12], "fp32", (4,))
    with pytest.raises(ValueError, match=r"expected one of .* got 'gzip'"):
        max_payload_bytes(3, "gzip")


@given(
    shape=st.lists(st.integers(0, 2**32 - 1), max_size=8),
    step=st.integers(0, 2**64 - 1),
    microbatch=st.integers(0, 2**32 - 1),
    checksum=st.integers(0, 2**32 - 1),
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_headers(
    dtype: torch.dtype, shape: list[int], step: int, microbatch: int, checksum: int
) -> None:
    """Headers of shapes that no payload here can hold are told from those that fit."""
    frame = torch.empty(64 + 24, dtype=torch.uint8)
    header = Header(step, microbatch, tuple(shape), "raw", 24, dtype, checksum)
    write_header(header, frame)
    if math.prod(shape) * dtype.itemsize == 24:
        assert read_header(frame) == header
    else:
        with pytest.raises(KnetError, match=rf"a payload for {dtype} \[.*\] as raw, got 24 bytes"):
            read_header(frame)
    # The same with a shape that fits.
    header = replace(header, shape=(1, 24 // dtype.itemsize))
    write_header(header, frame)
    assert read_header(frame) == header


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_headers_of_every_encoding(encoding: str) -> None:
    frame = torch.empty(64 + 12, dtype=torch.uint8)
    num_values = {"bf16": 6, "relu-sparse": 20}.get(encoding, 3)
    header = Header(7, 0, (num_values,), encoding, 12)
    write_header(header, frame)
    assert read_header(frame) == header
    for wrong in (2, 2**31):
        write_header(replace(header, shape=(wrong,)), frame)
        with pytest.raises(KnetError, match=rf"float32 \[{wrong}\] as {encoding}, got 12 bytes"):
            read_header(frame)
    if encoding != "raw":
        write_header(replace(header, dtype=torch.float16), frame)
        with pytest.raises(KnetError, match=f"float16 .* as {encoding}"):
            read_header(frame)


def test_dimensions_whose_product_is_huge() -> None:
    frame = torch.zeros(64, dtype=torch.uint8)
    for shape in ((2**32 - 1,) * 8, (2**31, 2**31, 4), (2**16,) * 4):  # 0 modulo 2^64, the last two
        write_header(Header(0, 0, shape, "raw", 0), frame)
        with pytest.raises(KnetError, match="got 0 bytes"):
            read_header(frame)


def test_bytes_that_are_no_frame() -> None:
    frame = torch.zeros(80, dtype=torch.uint8)
    with pytest.raises(KnetError, match="expected a frame of version 2"):
        read_header(frame)
    with pytest.raises(KnetError, match="at least 64 bytes, not 10"):
        read_header(frame[:10])
    write_header(Header(1, 2, (4,), "fp32", 16), frame)
    with pytest.raises(KnetError, match="payload of 16 bytes, got 15"):
        read_header(frame[:79])
    for index, number in ((4, 1), (5, 4), (6, 8), (7, 9)):  # version, encoding, dtype, rank
        wrong = frame.clone()
        wrong[index] = number
        with pytest.raises(KnetError, match="do all ranks run the same release"):
            read_header(wrong)
    with pytest.raises(ValueError, match="at most 8 dimensions, got 9"):
        write_header(Header(1, 2, (1,) * 9, "fp32", 16), frame)

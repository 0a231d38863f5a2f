"""What crosses a link: headers and the encodings of values."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.comm.encoding_names import ENCODINGS
from knet_hvd.comm.encodings import decode, encode, max_payload_bytes
from knet_hvd.comm.frames import Header, read_header, write_header
from knet_hvd.errors import KnetError

SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=5)


def round_trip(tensor: torch.Tensor, encoding: str) -> tuple[torch.Tensor, str, int]:
    out = torch.full((max_payload_bytes(tensor.numel(), encoding),), 255).byte()
    taken, num_bytes = encode(tensor, encoding, out)
    return decode(out[:num_bytes], taken, tensor.shape), taken, num_bytes


@given(shape=SHAPES, seed=st.integers(0, 999), zeros=st.floats(0, 1))
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_round_trip(encoding: str, shape: list[int], seed: int, zeros: float) -> None:
    torch.manual_seed(seed)
    tensor = torch.randn(shape) * (torch.rand(shape) >= zeros)
    decoded, _, num_bytes = round_trip(tensor, encoding)
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
    with pytest.raises(TypeError, match=r"expected torch.float32, got torch.float64"):
        encode(torch.ones(3, dtype=torch.float64), "fp32", out)
    with pytest.raises(ValueError, match="expected 16 bytes, got 12 bytes"):
        decode(out[:12], "fp32", (4,))
    with pytest.raises(ValueError, match=r"expected one of .* got 'gzip'"):
        max_payload_bytes(3, "gzip")


@given(
    shape=st.lists(st.integers(1, 2**32 - 1), max_size=8),
    step=st.integers(0, 2**64 - 1),
    microbatch=st.integers(0, 2**32 - 1),
)
def test_headers(shape: list[int], step: int, microbatch: int) -> None:
    frame = torch.empty(64 + 12, dtype=torch.uint8)
    for encoding in ENCODINGS:
        header = Header(step, microbatch, tuple(shape), encoding, 12)
        write_header(header, frame)
        assert read_header(frame) == header


def test_bytes_that_are_no_frame() -> None:
    frame = torch.zeros(80, dtype=torch.uint8)
    with pytest.raises(KnetError, match="expected a frame of version 1"):
        read_header(frame)
    with pytest.raises(KnetError, match="at least 64 bytes, not 10"):
        read_header(frame[:10])
    write_header(Header(1, 2, (4,), "fp32", 16), frame)
    with pytest.raises(KnetError, match="payload of 16 bytes, got 15"):
        read_header(frame[:79])
    with pytest.raises(ValueError, match="at most 8 dimensions, got 9"):
        write_header(Header(1, 2, (1,) * 9, "fp32", 16), frame)

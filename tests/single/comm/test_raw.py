"""The encoding of tensors of any dtype."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.comm import LinkSpec
from knet_hvd.comm.links.encodings import DTYPES, decode, encode, max_payload_bytes
from knet_hvd.comm.links.frames import HEADER_BYTES
from knet_hvd.errors import KnetError

SHAPES = st.lists(st.integers(0, 6), max_size=6)
SPEC = {"name": "tokens", "source": 0, "target": 1, "tag": 1, "encoding": "raw"}


def round_trip(tensor: torch.Tensor) -> torch.Tensor:
    out = torch.full((max_payload_bytes(tensor.numel(), "raw", tensor.dtype),), 255).byte()
    taken, num_bytes = encode(tensor, "raw", out)
    assert (taken, num_bytes) == ("raw", tensor.numel() * tensor.itemsize)
    decoded = decode(out[:num_bytes], "raw", tensor.shape, tensor.dtype)
    out.zero_()  # what was decoded has memory of its own
    return decoded


def bits(tensor: torch.Tensor) -> list[int]:
    """Return the bytes of all values, row by row."""
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1))
    return flat.view(torch.uint8).tolist()


def any_bits(shape: list[int], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Return a tensor whose bytes are random, NaN of all payloads among them."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(shape, dtype=dtype)
    limit = 2 if dtype == torch.bool else 256
    random = torch.randint(limit, (values.numel() * dtype.itemsize,), generator=generator)
    return random.byte().view(dtype).view(shape)


@given(shape=SHAPES, seed=st.integers(0, 999), order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_arrives(dtype: torch.dtype, shape: list[int], seed: int, order) -> None:
    tensor = any_bits(shape, dtype, seed)
    axes = order.sample(range(len(shape)), len(shape))
    strided = any_bits([2 * size for size in shape], dtype, seed)[
        (slice(None, None, 2),) * len(shape)
    ]
    for each in (tensor, tensor.permute(axes), strided, tensor.expand(3, *shape)):
        decoded = round_trip(each)
        assert (decoded.dtype, decoded.shape) == (dtype, each.shape)
        assert bits(decoded) == bits(each)


@pytest.mark.parametrize(
    ("dtype", "integer"),
    [
        (torch.float16, torch.int16),
        (torch.bfloat16, torch.int16),
        (torch.float32, torch.int32),
        (torch.float64, torch.int64),
    ],
)
def test_what_a_nan_carries_arrives(dtype: torch.dtype, integer: torch.dtype) -> None:
    infinity = torch.tensor(torch.inf, dtype=dtype).view(integer)
    quiet_and_signaling = torch.stack([infinity + 1, infinity + 5, -1 - torch.zeros_like(infinity)])
    tensor = quiet_and_signaling.repeat(20).view(dtype)
    assert tensor.isnan().all()
    assert torch.equal(round_trip(tensor).view(integer), tensor.view(integer))


@pytest.mark.parametrize("dtype", DTYPES)
def test_layouts_and_scalars(dtype: torch.dtype) -> None:
    images = torch.arange(120).remainder(2).to(dtype).view(3, 5, 4, 2)
    last = images.to(memory_format=torch.channels_last)
    for tensor in (images, last, images.mT, images[:, ::2], images[0, 0, 0, 1], images[:0]):
        assert torch.equal(round_trip(tensor), tensor)
    assert round_trip(images[0, 0, 0, 1]).shape == ()


def test_a_bool_from_elsewhere_is_0_or_1() -> None:
    payload = torch.tensor([0, 1, 2, 255], dtype=torch.uint8)
    decoded = decode(payload, "raw", (4,), torch.bool)
    assert decoded.view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_links_say_what_crosses() -> None:
    spec = LinkSpec(shape=(8, 3), dtype=torch.int64, **SPEC)
    assert spec.frame_bytes == HEADER_BYTES + 8 * 3 * 8
    assert list(spec.facts().values()) == ["int64 [8, 3] as raw, 4 credits"]
    assert LinkSpec(shape=(), dtype=torch.bool, **SPEC).frame_bytes == HEADER_BYTES + 1
    spec.check_shape((8, 3))
    spec.check_shape((5, 2))
    for wrong in ((9, 3), (8, 4), (8,), (8, 3, 1), ()):
        with pytest.raises(KnetError, match=r"tokens from rank 0 to rank 1: expected \[8, 3\] or"):
            spec.check_shape(wrong)
    with pytest.raises(KnetError, match=r"expected torch.int64, got torch.int32"):
        spec.check_dtype(torch.int32)
    with pytest.raises(TypeError, match=r"expected torch.float32 for fp32, got torch.int64"):
        LinkSpec(shape=(8, 3), dtype=torch.int64, **{**SPEC, "encoding": "fp32"})
    with pytest.raises(ValueError, match="expected positive numbers"):
        LinkSpec(shape=(8, 0), **SPEC)

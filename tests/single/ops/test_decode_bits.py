"""Decoding and the levels' digits: the PyTorch kernels' bits from every kernel."""

from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from knet_hvd import ops
from knet_hvd.ops import reference

LENGTHS = (0, 1, 127, 128, 129, 639, 640, 641, 1280, 4095, 4096, 4097)
CASES = (
    *product(LENGTHS, (0, 640)),
    *((129, 128), (1281, 128), (4225, 4224), (100003, 0), (100003, 12800)),
)
SCALES = (1.0, 0.0, 1e-45, 1e-39, 2.0**-101, 2.0**-100, 1e-3, 3.4e38, torch.inf, torch.nan)


def random_bytes(rows: int, columns: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, columns)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def mixed_scales(numel: int, scale_group_size: int, first: int = 0) -> Tensor:
    index = torch.arange(first, first + ops.num_scale_groups(numel, scale_group_size))
    return torch.tensor(SCALES)[index % len(SCALES)]


def check_decoding(device, dtype, same, numel, size, wire_format, ranks, divisor, seed=0) -> None:
    """Compare all three decoders on random payloads, longer than they need to be."""
    columns = ops.payload_bytes(numel, wire_format) + seed % 3
    payloads = random_bytes(ranks, columns, seed)
    scales, format_index = mixed_scales(numel, size, seed), ops.WIRE_FORMATS.index
    index, case = format_index(wire_format), (numel, size, ranks, divisor)
    sums = torch.full((numel,), 99, dtype=torch.int16)
    reference.unpack_sum(payloads, index, sums)
    actual = torch.full_like(sums, 77, device=device)
    there, there_scales = payloads.to(device), scales.to(device)
    same(ops.unpack_sum(there, wire_format, actual), sums, case)

    expected = torch.full((numel,), 99.0, dtype=dtype)
    out = torch.full_like(expected, 77.0, device=device)
    reference.decode_mean(payloads, scales, size, index, divisor, [expected])
    more = {"divisor": divisor, "scale_group_size": size, "wire_format": wire_format}
    ops.decode_mean(there, there_scales, [out], **more)
    same(out, expected, case)
    reference.dequantize(sums, scales, size, index, divisor, [expected])
    ops.dequantize(actual, there_scales, [out.fill_(77.0)], **more)
    same(out, expected, case)


@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
@pytest.mark.parametrize("ranks", [1, 3])
def test_decoders(device, dtype, wire_format, ranks, assert_same_bits) -> None:
    for numel, size in CASES:
        check_decoding(device, dtype, assert_same_bits, numel, size, wire_format, ranks, ranks)


@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
@pytest.mark.parametrize("ranks", [2, 16, 100, 511, 512])
def test_decoders_of_many_payloads(device, wire_format, ranks, assert_same_bits) -> None:
    check_decoding(device, torch.float32, assert_same_bits, 1300, 0, wire_format, ranks, ranks)


@given(
    numel=st.integers(0, 3000),
    scale_group_size=st.integers(0, 8).map(lambda groups: 128 * groups),
    wire_format=st.sampled_from(ops.WIRE_FORMATS),
    ranks=st.integers(1, 9),
    divisor=st.sampled_from([1, 2, 3, 7, 512, 2**24 + 1]),
    seed=st.integers(0, 1000),
)
def test_decoders_drawn(
    device, dtype, assert_same_bits, numel, scale_group_size, wire_format, ranks, divisor, seed
) -> None:
    check_decoding(
        device, dtype, assert_same_bits, numel, scale_group_size, wire_format, ranks, divisor, seed
    )


@given(
    numel=st.integers(0, 5000),
    base=st.integers(2, 1025),
    fewer=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_digits(device, assert_same_bits, numel, base, fewer, seed) -> None:
    """Packing gives the reference's words, and unpacking them the values again."""
    num_digits = max(1, ops.digits_per_word(base) - fewer)
    generator = torch.Generator().manual_seed(seed)
    offset = seed % base
    values = torch.randint(0, base, (numel,), generator=generator) - offset
    values = values.to(torch.int16)
    size = ops.num_words(numel, num_digits)
    expected = torch.empty(size, dtype=torch.int64)
    reference.pack_digits(values, base, offset, num_digits, expected)
    how = {"base": base, "offset": offset, "num_digits": num_digits}
    words = ops.pack_digits(values.to(device), **how)
    assert_same_bits(words, expected)
    back = torch.full_like(values, -9, device=device)
    assert_same_bits(ops.unpack_digits(words, back, **how), values)


@pytest.mark.parametrize("base", [2, 3, 4, 5, 17, 33, 255, 256, 257, 1024, 1025])
def test_digits_of_any_word(device, base, assert_same_bits) -> None:
    """Words that no encoder writes give the reference's digits, 0 to base - 1."""
    num_digits = ops.digits_per_word(base)
    words = random_bytes(1, 64 * 32 * 8).view(torch.int64).reshape(-1).clone()
    words[:4] = torch.tensor([-1, 0, 2**63 - 1, -(2**63)])
    for numel in (len(words) * num_digits, (len(words) - 1) * num_digits + 1):
        expected = torch.empty(numel, dtype=torch.int16)
        reference.unpack_digits(words, base, 3, num_digits, expected)
        actual = torch.empty_like(expected, device=device)
        ops.unpack_digits(words.to(device), actual, base=base, offset=3, num_digits=num_digits)
        assert_same_bits(actual, expected, numel)
        assert -3 <= int(actual.min()) <= int(actual.max()) <= base - 4

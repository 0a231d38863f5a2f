"""The levels codec: sums of N ranks' codes come back exactly, and words add up."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from knet_hvd.compression import LevelsCodec


def codes_of_ranks(num_ranks: int, numel: int, seed: int = 0) -> Tensor:
    """Return codes [num_ranks, numel], int16; the first values are extreme."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-1, 2, (num_ranks, numel), generator=generator)
    codes[:, : numel // 3] = -1
    codes[:, numel // 3 : numel // 2] = 1
    return codes.to(torch.int16)


def summed(codes: Tensor) -> Tensor:
    return codes.sum(0).to(torch.int16)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7, 8, 16, 100, 512])
@pytest.mark.parametrize("numel", [0, 1, 31, 32, 865, 10_007])
def test_sums_come_back_exactly(device, num_ranks, numel) -> None:
    codec = LevelsCodec(num_ranks)
    sums = summed(codes_of_ranks(num_ranks, numel)).to(device)
    words = codec.pack(sums)
    assert (words.dtype, words.numel()) == (torch.int64, codec.num_words(numel))
    back = torch.full_like(sums, 999)
    assert torch.equal(codec.unpack(words, back), sums)


@pytest.mark.parametrize(
    ("num_ranks", "digits", "bits"), [(2, 27, 2.37), (4, 20, 3.2), (8, 15, 4.27), (16, 12, 5.33)]
)
def test_bits_per_value(num_ranks, digits, bits) -> None:
    codec = LevelsCodec(num_ranks)
    assert codec.digits_per_word == digits
    assert codec.bits_per_value == pytest.approx(bits, abs=0.005)
    million = 1_000_000
    assert 64 * codec.num_words(million) / million == pytest.approx(bits, abs=0.01)


@given(num_ranks=st.integers(1, 512), bits=st.sampled_from([48, 63, 64]))
def test_words_are_as_full_as_they_can_be(num_ranks, bits) -> None:
    codec = LevelsCodec(num_ranks, bits)
    assert codec.base**codec.digits_per_word <= 2**bits
    assert codec.base ** (codec.digits_per_word + 1) > 2**bits
    assert codec.bits_per_value >= math.log2(2 * num_ranks + 1)


@given(
    num_ranks=st.sampled_from([1, 2, 3, 4, 8, 33, 512]),
    numel=st.integers(0, 700),
    bits=st.sampled_from([48, 63, 64]),
    seed=st.integers(0, 99),
)
def test_ranks_words_add_up(device, num_ranks, numel, bits, seed) -> None:
    """As int64: the sum of all ranks' words is the word of the sums, bit for bit."""
    codec = LevelsCodec(num_ranks, bits)
    codes = codes_of_ranks(num_ranks, numel, seed).to(device)
    total = torch.stack([codec.pack_own(own) for own in codes]).sum(0)
    sums = summed(codes)
    assert torch.equal(total, codec.pack(sums))
    assert torch.equal(codec.unpack(total, torch.empty_like(sums)), sums)


@pytest.mark.parametrize("num_ranks", [0, -1, 513])
def test_number_of_ranks_out_of_range(num_ranks) -> None:
    with pytest.raises(ValueError, match=f"expected 1 to 512, got {num_ranks}"):
        LevelsCodec(num_ranks)

"""Buffers of codes that Horovod sums or averages: sums of codes come out exactly."""

import pytest
import torch
from torch import Tensor

from knet_hvd.compression import LevelsCodec
from knet_hvd.data_parallel.allreduce.words import (
    HEADER_WORDS,
    make_header,
    split_header,
    sum_dtype,
    word_bits,
)


def reduced(rows: Tensor, average: bool, predivide: float = 1.0) -> Tensor:
    """Return what Horovod makes of ranks' buffers, adding them one after the other.

    ``op=Average`` multiplies by 1 / predivide before, by predivide / N after the sum.
    """
    total = torch.zeros_like(rows[0])
    for row in rows:
        total = total + (row * (1.0 / predivide) if average else row)
    return total * (predivide / len(rows)) if average else total


def test_largest_sums_stay_positive() -> None:
    """Horovod sums signed integers, which must not overflow."""
    for num_ranks in range(1, 513):
        codec = LevelsCodec(num_ranks, word_bits(False, num_ranks))
        top = torch.full((codec.digits_per_word * 32,), num_ranks, dtype=torch.int16)
        assert int(codec.pack(top).min()) > 0


def own_codes(num_ranks: int, numel: int) -> Tensor:
    """Return codes [num_ranks, numel], int16; the first thirds all -1 and all 1."""
    generator = torch.Generator().manual_seed(num_ranks)
    codes = torch.randint(-1, 2, (num_ranks, numel), generator=generator)
    codes[:, : numel // 3], codes[:, numel // 3 : 2 * numel // 3] = -1, 1
    return codes.to(torch.int16)


def check_words(num_ranks: int, average: bool, predivide: float = 1.0) -> None:
    """Codes under a header come back as exact sums."""
    codec = LevelsCodec(num_ranks, word_bits(average, num_ranks))
    codes = own_codes(num_ranks, 3000)
    head = torch.tensor(make_header(0.1, 9, 0.04))
    rows = [torch.cat([head, codec.pack_own(own)]) for own in codes]
    total = reduced(torch.stack(rows).to(sum_dtype(average)), average, predivide)
    assert len(total) == HEADER_WORDS + codec.num_words(3000)
    header, words = split_header(total, num_ranks, average)
    header.check("w", 0.1, 9, num_ranks)
    sums = codec.unpack(words, torch.empty(3000, dtype=torch.int16))
    assert torch.equal(sums, codes.sum(0).to(torch.int16))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7, 8, 16, 100, 290, 387, 512])
def test_summed_and_averaged_words_are_exact(num_ranks) -> None:
    check_words(num_ranks, average=False)
    check_words(num_ranks, average=True)


@pytest.mark.parametrize("num_ranks", [2, 3, 4, 8, 16, 100, 290, 512])
@pytest.mark.parametrize("predivide", [3.0, 2.718281828, 7.0, 0.1])
def test_averages_with_a_predivide_factor_are_exact(num_ranks, predivide) -> None:
    """Words divided by 3 are no integers any more: every addition rounds."""
    check_words(num_ranks, average=True, predivide=predivide)


@pytest.mark.parametrize("num_ranks", [350, 365, 387])
def test_averages_of_hundreds_of_ranks_with_a_predivide_factor(num_ranks) -> None:
    check_words(num_ranks, average=True, predivide=3.0)

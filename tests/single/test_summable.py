"""Buffers that Horovod sums or averages: exact codes, and a header to check ranks."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from knet_hvd.compression import LevelsCodec
from knet_hvd.config import RankMismatchError
from knet_hvd.data_parallel.summable import (
    HEADER_WORDS,
    SummedHeader,
    fingerprint,
    make_header,
    split_header,
    sum_dtype,
    word_bits,
)

SCALES = st.floats(2.0**-90, 2.0**100, width=32)
STEPS = st.integers(0, 2**20)


def reduced(rows: Tensor, average: bool, predivide: float = 1.0) -> Tensor:
    """Return what Horovod makes of ranks' buffers, adding them one after the other.

    ``op=Average`` multiplies by 1 / predivide before, by predivide / N after the sum.
    """
    total = torch.zeros_like(rows[0])
    for row in rows:
        total = total + (row * (1.0 / predivide) if average else row)
    return total * (predivide / len(rows)) if average else total


def summed_header(headers: list[list[int]], average: bool) -> SummedHeader:
    rows = torch.tensor(headers, dtype=sum_dtype(average))
    header, rest = split_header(reduced(rows, average), len(rows), average)
    assert rest.numel() == 0
    return header


@given(scale=SCALES, step=STEPS, num_ranks=st.integers(1, 512), average=st.booleans())
def test_ranks_that_agree_pass(scale, step, num_ranks, average) -> None:
    headers = [make_header(scale, step, scale * 0.4)] * num_ranks
    header = summed_header(headers, average)
    header.check("w", scale, step, num_ranks)
    assert header.num_invalid == 0
    mean = header.mean_deviation(scale, num_ranks)
    assert mean == pytest.approx(scale * 0.4, rel=1e-6)


@given(
    scale=SCALES,
    other=SCALES,
    step=STEPS,
    other_step=STEPS,
    num_ranks=st.integers(2, 512),
    odd=st.integers(0, 511),
    average=st.booleans(),
)
def test_one_rank_that_differs_is_found_on_every_rank(
    scale, other, step, other_step, num_ranks, odd, average
) -> None:
    assume(fingerprint(scale, step) != fingerprint(other, other_step))
    headers = [make_header(scale, step, scale)] * num_ranks
    headers[odd % num_ranks] = make_header(other, other_step, other)
    header = summed_header(headers, average)
    for mine in ((scale, step), (other, other_step)):
        with pytest.raises(RankMismatchError, match="w: ranks used different scales"):
            header.check("w", *mine, num_ranks)


@given(marks=st.lists(SCALES, min_size=2, max_size=8), step=STEPS)
def test_any_mixture_of_scales_is_found(marks, step) -> None:
    assume(len({fingerprint(scale, step) for scale in marks}) > 1)
    header = summed_header([make_header(s, step, s) for s in marks], average=False)
    for scale in marks:
        with pytest.raises(RankMismatchError):
            header.check("w", scale, step, len(marks))


@given(scale=SCALES, step=STEPS)
def test_neighbouring_steps_and_scales_have_other_fingerprints(scale, step) -> None:
    """What goes wrong in practice: a step skipped, a scale rounded differently."""
    own = fingerprint(scale, step)
    assert 0 <= own < 2**16
    for distance in (1, 2, 3, 10, 100, 1000):
        assert fingerprint(scale, step + distance) != own
        bits = torch.tensor(scale).view(torch.int32) + distance
        assert fingerprint(float(bits.view(torch.float32)), step) != own


def test_fingerprints_rarely_agree_by_chance() -> None:
    """16 bits: about one pair in 65,536; 300 scales make 44,850 pairs."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.rand(300, generator=generator).tolist()
    assert len({fingerprint(scale, 7) for scale in scales}) > 290


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_ranks_without_a_finite_gradient_are_counted(bad) -> None:
    good, invalid = make_header(0.5, 3, 0.2), make_header(0.5, 3, bad)
    for average in (False, True):
        header = summed_header([good, invalid, good, invalid], average)
        header.check("w", 0.5, 3, 4)
        assert header.num_invalid == 2


@pytest.mark.parametrize(
    ("ratio", "known"), [(0.0, False), (1e-4, False), (1e-3, True)]
)
@pytest.mark.parametrize("num_ranks", [1, 4])
def test_small_deviations_leave_the_range(ratio, known, num_ranks) -> None:
    headers = [make_header(2.0, 0, 2.0 * ratio)] * num_ranks
    mean = summed_header(headers, average=False).mean_deviation(2.0, num_ranks)
    assert mean == (pytest.approx(2.0 * ratio, rel=1e-3) if known else None)


@pytest.mark.parametrize("num_ranks", [1, 3, 512])
def test_large_deviations_leave_the_range(num_ranks) -> None:
    """Even if only one rank's is cut off at 4096 scales, the mean is not to be used."""
    headers = [make_header(2.0, 0, 2.0)] * num_ranks
    headers[-1] = make_header(2.0, 0, 2.0 * 5000)
    assert summed_header(headers, average=False).mean_deviation(2.0, num_ranks) is None
    headers[-1] = make_header(2.0, 0, 2.0 * (4000 / num_ranks))
    mean = summed_header(headers, average=False).mean_deviation(2.0, num_ranks)
    expected = 2.0 * (4000 / num_ranks + num_ranks - 1) / num_ranks
    assert mean == pytest.approx(expected, rel=1e-6)


def own_codes(num_ranks: int, numel: int) -> Tensor:
    """Return codes [num_ranks, numel], int16; the first thirds all -1 and all 1."""
    generator = torch.Generator().manual_seed(num_ranks)
    codes = torch.randint(-1, 2, (num_ranks, numel), generator=generator)
    codes[:, : numel // 3], codes[:, numel // 3 : 2 * numel // 3] = -1, 1
    return codes.to(torch.int16)


def check_words(num_ranks: int, average: bool, predivide: float = 1.0) -> None:
    """Codes under a header come back as exact sums."""
    codec = LevelsCodec(num_ranks, word_bits(average))
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


@pytest.mark.xfail(strict=True, reason="48 bits are too many: every addition rounds")
@pytest.mark.parametrize("num_ranks", [350, 365, 387])
def test_averages_of_hundreds_of_ranks_with_a_predivide_factor(num_ranks) -> None:
    check_words(num_ranks, average=True, predivide=3.0)

"""The header of summed buffers: it tells whether ranks used the same scale."""

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from knet_hvd.data_parallel.allreduce.words import (
    SummedHeader,
    fingerprint,
    make_header,
    split_header,
    sum_dtype,
)
from knet_hvd.errors import RankMismatchError

SCALES = st.floats(2.0**-90, 2.0**100, width=32)
STEPS = st.integers(0, 2**20)


def summed_header(headers: list[list[int]], average: bool) -> SummedHeader:
    rows = torch.tensor(headers, dtype=sum_dtype(average))
    total = rows.sum(0) / len(rows) if average else rows.sum(0)
    header, rest = split_header(total, len(rows), average)
    assert rest.numel() == 0
    return header


@given(scale=SCALES, step=STEPS, num_ranks=st.integers(1, 512), average=st.booleans())
def test_ranks_that_agree_pass(scale, step, num_ranks, average) -> None:
    headers = [make_header(scale, step, scale * 0.4)] * num_ranks
    header = summed_header(headers, average)
    header.check("w", scale, step, num_ranks)
    assert header.num_invalid == 0
    mean = header.mean_magnitude(scale, num_ranks)
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


@given(scale=SCALES, step=STEPS, num_ranks=st.integers(2, 512))
def test_both_check_words_count(scale, step, num_ranks) -> None:
    """Others' marks may cancel out in the sum, or agree on another scale than mine."""
    own = fingerprint(scale, step)
    for squares in (own * own * num_ranks + 2, own * own * num_ranks - 1):
        header = SummedHeader(own * num_ranks, squares, 0, 0)
        with pytest.raises(RankMismatchError):
            header.check("w", scale, step, num_ranks)
    other = own ^ 1
    header = SummedHeader(other * num_ranks, other * other * num_ranks, 0, 0)
    with pytest.raises(RankMismatchError):
        header.check("w", scale, step, num_ranks)


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


@pytest.mark.parametrize(("ratio", "known"), [(0.0, False), (1e-4, False), (1e-3, True)])
@pytest.mark.parametrize("num_ranks", [1, 4])
def test_small_magnitudes_leave_the_range(ratio, known, num_ranks) -> None:
    headers = [make_header(2.0, 0, 2.0 * ratio)] * num_ranks
    mean = summed_header(headers, average=False).mean_magnitude(2.0, num_ranks)
    assert mean == (pytest.approx(2.0 * ratio, rel=1e-3) if known else None)


@pytest.mark.parametrize("num_ranks", [1, 3, 512])
def test_large_magnitudes_leave_the_range(num_ranks) -> None:
    """Even if only one rank's is cut off at 4096 scales, the mean is not to be used."""
    headers = [make_header(2.0, 0, 2.0)] * num_ranks
    headers[-1] = make_header(2.0, 0, 2.0 * 5000)
    assert summed_header(headers, average=False).mean_magnitude(2.0, num_ranks) is None
    headers[-1] = make_header(2.0, 0, 2.0 * (4000 / num_ranks))
    mean = summed_header(headers, average=False).mean_magnitude(2.0, num_ranks)
    expected = 2.0 * (4000 / num_ranks + num_ranks - 1) / num_ranks
    assert mean == pytest.approx(expected, rel=1e-6)

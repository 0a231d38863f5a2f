"""Results do not depend on the number of threads."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from knet_hvd import ops

NUMEL = 1_100_003


@pytest.fixture
def keep_num_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def results(values: Tensor, scale_group_size: int, wire_format: ops.WireFormat) -> list[Tensor]:
    """Return what all ops make of a gradient."""
    moments = ops.statistics([values], scale_group_size)
    largest = ops.scales([values], scale_group_size)
    deviations = ops.scales([values], scale_group_size, rule="std")
    how = {"scale_group_size": scale_group_size, "wire_format": wire_format}
    rows = [
        ops.ternarize([values], largest / 2, key=(0, rank, 2), streams=[1], **how)
        for rank in (0, 1)
    ]
    payloads, sums = torch.stack(rows), torch.empty(NUMEL, dtype=torch.int16)
    ops.unpack_sum(payloads, wire_format, sums)
    mean, again = torch.empty(NUMEL), torch.empty(NUMEL)
    ops.decode_mean(payloads, largest, [mean], divisor=2, **how)
    ops.dequantize(sums, largest, [again], divisor=2, **how)
    words = ops.pack_digits(sums, base=5, offset=2, num_digits=27)
    back = torch.empty_like(sums)
    ops.unpack_digits(words, back, base=5, offset=2, num_digits=27)
    return [moments, largest, deviations, payloads, sums, mean, again, words, back]


@pytest.mark.parametrize("scale_group_size", [0, 128, 131072])
@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
def test_every_number_of_threads(keep_num_threads, gradient, scale_group_size, wire_format) -> None:
    values = gradient(NUMEL)
    torch.set_num_threads(1)
    expected = results(values, scale_group_size, wire_format)
    for num_threads in (2, 3, 4):
        torch.set_num_threads(num_threads)
        found = results(values, scale_group_size, wire_format)
        for number, (left, right) in enumerate(zip(found, expected, strict=True)):
            assert torch.equal(left, right), (num_threads, number)

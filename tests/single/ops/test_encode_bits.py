"""Statistics, largest values and payloads: the PyTorch kernels' bits from every kernel.

The expectation always comes from the reference on the CPU, whatever the device.
"""

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
SCALES = (
    *(0.0, 1e-45, 1e-39, 2.0**-101, 2.0**-100, 1e-3),
    *(1.0, 2.5, 3.4e38, float("inf"), float("nan")),
)
SCALE_GROUPS = st.integers(0, 8).map(lambda groups: 128 * groups)
WORD = st.integers(0, 2**32 - 1)
STREAM = 5


def mixed_scales(numel: int, scale_group_size: int, first: int = 6) -> Tensor:
    """Return scales [num_scale_groups] that walk through SCALES."""
    index = torch.arange(first, first + ops.num_scale_groups(numel, scale_group_size))
    return torch.tensor(SCALES)[index % len(SCALES)]


def both_payloads(
    values: Tensor,
    scales: Tensor,
    device: str,
    *,
    key: tuple[int, int, int],
    stochastic: bool,
    scale_group_size: int = 0,
    wire_format: ops.WireFormat = "trit5",
) -> tuple[Tensor, Tensor]:
    """Return what a device's kernels write, and what the reference does."""
    size = ops.payload_bytes(values.numel(), wire_format)
    expected = torch.empty(size, dtype=torch.uint8)
    index = ops.WIRE_FORMATS.index(wire_format)
    reference.ternarize(
        [values], scales, scale_group_size, index, list(key), [STREAM], [0], stochastic, expected
    )
    actual = ops.ternarize(
        [values.to(device)],
        scales.to(device),
        key=key,
        streams=[STREAM],
        scale_group_size=scale_group_size,
        wire_format=wire_format,
        stochastic=stochastic,
    )
    return actual, expected


@pytest.mark.parametrize("kind", ["normal", "special", "bits"])
def test_statistics_and_scales(device, dtype, kind, gradient, assert_same_bits) -> None:
    for numel, size in CASES:
        values = [gradient(numel, dtype, kind)]
        there = [values[0].to(device)]
        expected = reference.statistics(values, size)
        assert_same_bits(ops.statistics(there, size), expected, (numel, size))
        for number, rule in enumerate(ops.SCALE_RULES):
            expected = reference.scales(values, size, number, 2.5)
            found = ops.scales(there, size, rule=rule, clip_factor=2.5)
            assert_same_bits(found, expected, (rule, numel, size))


@pytest.mark.parametrize("stochastic", [True, False], ids=["stochastic", "nearest"])
@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
def test_payloads(device, dtype, wire_format, stochastic, gradient, assert_same_bits) -> None:
    key = (2**32 - 1, 3, 2**40 + 7)
    for numel, size in CASES:
        values, scales = gradient(numel, dtype, "special"), mixed_scales(numel, size)
        form = {"scale_group_size": size, "wire_format": wire_format}
        actual, expected = both_payloads(
            values, scales, device, key=key, stochastic=stochastic, **form
        )
        assert_same_bits(actual, expected, (numel, size))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("stochastic", [True, False], ids=["stochastic", "nearest"])
def test_payloads_of_every_scale(
    device, dtype, scale, stochastic, gradient, assert_same_bits
) -> None:
    scales, key = torch.tensor([scale]), (1, 2, 4)
    for kind in ("special", "bits", "zero"):
        values = gradient(1281, dtype, kind)
        actual, expected = both_payloads(values, scales, device, key=key, stochastic=stochastic)
        assert_same_bits(actual, expected, kind)


@given(
    numel=st.integers(0, 3000),
    scale_group_size=SCALE_GROUPS,
    wire_format=st.sampled_from(ops.WIRE_FORMATS),
    stochastic=st.booleans(),
    key=st.tuples(WORD, WORD, st.integers(0, 2**63 - 1)),
    first=st.integers(0, 10),
)
def test_payloads_of_any_bits(
    device,
    dtype,
    gradient,
    assert_same_bits,
    numel,
    scale_group_size,
    wire_format,
    stochastic,
    key,
    first,
) -> None:
    """Any bit pattern is a gradient, signalling NaNs included."""
    values = gradient(numel, dtype, "bits", seed=key[0])
    scales = mixed_scales(numel, scale_group_size, first)
    form = {"scale_group_size": scale_group_size, "wire_format": wire_format}
    actual, expected = both_payloads(values, scales, device, key=key, stochastic=stochastic, **form)
    assert_same_bits(actual, expected)
    there = [values.to(device)]
    expected = reference.statistics([values], scale_group_size)
    assert_same_bits(ops.statistics(there, scale_group_size), expected)
    for number, rule in enumerate(ops.SCALE_RULES):
        expected = reference.scales([values], scale_group_size, number, 1.224)
        found = ops.scales(there, scale_group_size, rule=rule, clip_factor=1.224)
        assert_same_bits(found, expected, rule)


@pytest.mark.parametrize("wire_format", ops.WIRE_FORMATS)
@pytest.mark.parametrize("scale_group_size", [0, 1280])
def test_parts_give_the_bytes_of_the_whole(device, wire_format, scale_group_size) -> None:
    """A tensor encoded in parts of whole blocks and scale groups, as chunks cross."""
    values = torch.randn(20_000, device=device)
    numbers = ops.num_scale_groups(20_000, scale_group_size)
    scales = torch.linspace(1.0, 3.0, numbers, device=device)
    options = {"scale_group_size": scale_group_size, "wire_format": wire_format}
    options |= {"key": (1, 2, 4), "streams": [STREAM]}
    whole = ops.ternarize([values], scales, **options)
    parts = []
    for first in range(0, 20_000, 5120):
        part = values[first : first + 5120]
        own = scales[first // scale_group_size :] if scale_group_size else scales
        own = own[: ops.num_scale_groups(part.numel(), scale_group_size)]
        parts.append(ops.ternarize([part], own, first_values=[first], **options))
    assert torch.equal(torch.cat(parts), whole)

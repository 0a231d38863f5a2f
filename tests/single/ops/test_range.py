"""Values near the ends of the range of fp32 arrive; what cannot arrive is said."""

import logging

import pytest
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import TernaryConfig, local_scales, scales

ENDS = (1e-44, 1e-40, 1e-38, 1e-35, 1e-31, 1e-20, 1e20, 1e38, 3.3e38)
NUMEL = 50_000


def alternating(magnitude: float, dtype: torch.dtype, device: str, numel: int = NUMEL) -> Tensor:
    signs = 1 - 2 * (torch.arange(numel) % 2)
    return (signs.double() * magnitude).to(dtype).to(device)


def round_trip(values: Tensor, rule: ops.ScaleRule, stochastic: bool = True) -> Tensor:
    """Return what two equal ranks' codes average to, fp64 on the CPU."""
    shared = ops.scales([values], rule=rule, clip_factor=2.5)
    payloads = torch.stack(
        [
            ops.ternarize([values], shared, key=(1, rank, 2), streams=[3], stochastic=stochastic)
            for rank in (0, 1)
        ]
    )
    out = torch.empty_like(values)
    ops.decode_mean(payloads, shared, [out], divisor=2)
    return out.double().cpu()


@pytest.mark.parametrize("magnitude", ENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_value_arrives(device, dtype, magnitude) -> None:
    """With the scale that is the largest value, every code fires."""
    values = alternating(magnitude, dtype, device)
    expected = values.double().cpu()
    found = round_trip(values, "max")
    # Half a scale is the smallest step below 2^-126: it may be rounded away.
    assert float((found - expected).abs().max()) <= max(1e-44, 1e-6 * magnitude)


@pytest.mark.parametrize("rule", ["rms", "std"])
@pytest.mark.parametrize("magnitude", ENDS[1:])
def test_the_mean_of_what_arrives_is_the_gradient(device, rule, magnitude) -> None:
    """Codes of probability 0.4, 100,000 of them: 6 deviations are 2.4 % of the mean."""
    values = alternating(magnitude, torch.float32, device)
    found = round_trip(values, rule)
    mean = float((found * torch.sign(values.double().cpu())).mean())
    assert torch.isfinite(found).all()
    assert mean == pytest.approx(float(values[0]), rel=0.025)


@pytest.mark.parametrize("magnitude", ENDS)
def test_the_nearest_code_of_a_small_scale(device, magnitude) -> None:
    """Values from 0 to twice the scale: codes are 1 from half the scale on."""
    values = torch.linspace(0, 1, 1001, dtype=torch.float64) * magnitude
    values = values.to(torch.float32).to(device)
    scale = values[500:501].contiguous()
    payload = ops.ternarize([values], scale, key=(0, 0, 0), streams=[0], stochastic=False)
    codes = torch.empty(1001, dtype=torch.int16, device=device)
    ops.unpack_sum(payload[None], "trit5", codes)
    expected = (values.double() >= 0.5 * scale.double()).to(torch.int16)
    assert torch.equal(codes, expected)


@pytest.mark.parametrize(
    ("magnitude", "arrives_as", "said"),
    [(1e-60, 0.0, "below 1e-45 arrive as 0"), (1e60, torch.nan, "above 3.4e38 arrive as NaN")],
)
def test_fp64_outside_of_fp32_is_said_once(
    device, caplog, monkeypatch, magnitude, arrives_as, said
) -> None:
    monkeypatch.setattr(scales, "_warned", set())
    values = alternating(magnitude, torch.float64, device)
    with caplog.at_level(logging.WARNING, logger="knet_hvd"):
        shared = local_scales([values], TernaryConfig())
        local_scales([values], TernaryConfig())
    payload = ops.ternarize([values], shared, key=(0, 0, 0), streams=[0])
    out = torch.empty_like(values)
    ops.decode_mean(payload[None], shared, [out])
    assert float(out[0]) == arrives_as or bool(out[0].isnan()) == (arrives_as != arrives_as)
    assert [said in record.getMessage() for record in caplog.records] == [True]


def test_fp64_that_needs_no_warning(device, caplog, monkeypatch) -> None:
    """Zeros, and a step that a loss scaler will skip, are no news."""
    monkeypatch.setattr(scales, "_warned", set())
    with caplog.at_level(logging.WARNING, logger="knet_hvd"):
        for values in ([0.0, 0.0], [1.0, torch.inf], [torch.nan, 1.0], [1e-30, 1e30]):
            gradient = torch.tensor(values, dtype=torch.float64, device=device)
            local_scales([gradient], TernaryConfig())
    assert not caplog.records


def test_no_number_of_ranks_makes_the_largest_scale_infinite(device) -> None:
    """N codes of the largest scale that finite values have, over N, are that scale."""
    values = torch.full((10,), torch.finfo(torch.float32).max, device=device)
    largest = ops.scales([values], rule="rms", clip_factor=2.5)
    out = torch.empty(10, device=device)
    for num_ranks in range(1, 513):
        sums = torch.full((10,), num_ranks, dtype=torch.int16, device=device)
        ops.dequantize(sums, largest, [out], divisor=num_ranks)
        assert bool(torch.isfinite(out).all())
        assert torch.allclose(out, values)

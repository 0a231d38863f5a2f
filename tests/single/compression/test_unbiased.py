"""The codes are fair: their mean is the gradient, and no two draws go together.

Seeds are fixed, so the tests give one answer; bounds say how rarely a fair codec with
other seeds would be refused. DELTA is that rate for one comparison; with fewer than 50
comparisons the file refuses a fair codec less often than once in 10^9.
"""

import math

import pytest
import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.ops.philox import random16

DELTA = 2e-11
BIAS = 2.0**-17  # of the scale: 16 random bits, thresholds rounded to nearest
NUM_STEPS, NUMEL, SCALE = 2000, 5120, 0.75


def sample() -> Tensor:
    """Return a gradient [NUMEL] from -SCALE to SCALE in no particular order."""
    generator = torch.Generator().manual_seed(7)
    return (torch.rand(NUMEL, generator=generator) * 2 - 1) * SCALE


def draw(values: Tensor, scale: float, key: tuple[int, int, int, int], fmt="trit5") -> Tensor:
    """Return one payload's codes, int16."""
    scales = torch.tensor([scale], device=values.device)
    seed, rank, stream, step = key
    payload = ops.ternarize(
        [values], scales, key=(seed, rank, step), streams=[stream], wire_format=fmt
    )
    sums = torch.empty(values.numel(), dtype=torch.int16, device=values.device)
    return ops.unpack_sum(payload[None], fmt, sums)


def mean_decoded(values: Tensor, scale: float, fmt: str, num_steps: int) -> Tensor:
    """Return the mean over steps of the decoded gradient, fp64 on the CPU."""
    total = torch.zeros(values.numel(), dtype=torch.int64, device=values.device)
    for step in range(num_steps):
        total += draw(values, scale, (1, 2, 3, step), fmt)
    return total.cpu().double() / num_steps * scale


def slope_error(mean: Tensor, gradient: Tensor) -> float:
    """Return |<mean, g> / <g, g> - 1|: how far off the length along g is."""
    exact = gradient.double()
    return abs(float(mean @ exact / (exact @ exact)) - 1)


def slope_bound(gradient: Tensor, scale: float, num_steps: int) -> float:
    """Bound ``slope_error`` with false-alarm rate DELTA.

    <mean, g> is the sum of K n independent terms g_i d_ki / K, each between 0 and
    |g_i| s / K. Hoeffding: it leaves its expectation by t with probability at most
    2 exp(-2 t^2 / sum of squared ranges), the sum being s^2 <g, g> / K. So
    t = s sqrt(<g, g> ln(2 / DELTA) / (2 K)), to be divided by <g, g>. The bias is at
    most 2^-17 s |g|_1 / <g, g>.
    """
    square = float(gradient.double().square().sum())
    noise = scale * math.sqrt(math.log(2 / DELTA) / (2 * num_steps * square))
    return noise + BIAS * scale * float(gradient.abs().sum()) / square


@pytest.mark.parametrize("fmt", ops.WIRE_FORMATS)
def test_decoded_gradients_are_unbiased(device, fmt) -> None:
    """Along the gradient (slope) and in every value (Hoeffding and a union bound)."""
    gradient = sample()
    mean = mean_decoded(gradient.to(device), SCALE, fmt, NUM_STEPS)
    assert slope_error(mean, gradient) <= slope_bound(gradient, SCALE, NUM_STEPS)
    single = SCALE * math.sqrt(math.log(2 * NUMEL / DELTA) / (2 * NUM_STEPS))
    worst = float((mean - gradient).abs().max())
    assert worst <= single + BIAS * SCALE
    lanes = (mean - gradient).view(-1, 128).mean(0)  # a lane that is off shows here
    lane = SCALE * math.sqrt(math.log(2 * 128 / DELTA) / (2 * NUM_STEPS * NUMEL / 128))
    assert float(lanes.abs().max()) <= lane + BIAS * SCALE


@pytest.mark.parametrize("factor", [0.98, 1.02])
def test_the_bound_refuses_a_gradient_off_by_two_percent(device, factor) -> None:
    gradient = sample() / 1.03
    wrong = mean_decoded((gradient * factor).to(device), SCALE, "trit5", NUM_STEPS)
    bound = slope_bound(gradient, SCALE, NUM_STEPS)
    assert bound < 0.01
    assert slope_error(wrong, gradient) > bound


def test_thresholds_bound_the_bias_by_half_a_step_of_16_bits(device) -> None:
    """With 16 bits r, a value fires iff |g| / s * 2^16 is above r + 1/2.

    Hence P(fires) = round(|g| / s * 2^16) / 2^16, off by at most 2^-17.
    """
    key = (5, 6, 7, 8)
    random = random16(100_000, list(key), 0, torch.device("cpu")).double()
    sign = 1 - 2 * (torch.arange(100_000) % 2)
    for margin, fires in ((1 / 64, 1), (-1 / 64, 0)):
        values = sign * (random + 0.5 + margin) * 2.0**-16 * 0.25
        codes = draw(values.float().to(device), 0.25, key)
        assert torch.equal(codes.cpu().long(), sign * fires)


def test_large_values_always_fire_zeros_never(device, dtype) -> None:
    values = torch.tensor([0.0, -0.0, 1.0, -1.0, 1.5, -60000.0, torch.inf, -torch.inf])
    values = values.to(device, dtype).repeat(400)
    for step in range(20):
        codes = draw(values, 1.0, (0, 0, 0, step)).view(400, 8)
        assert bool((codes == torch.tensor([0, 0, 1, -1, 1, -1, 1, -1]).to(codes)).all())


def test_signs_are_kept(device) -> None:
    gradient = sample()
    for step in range(50):
        codes = draw(gradient.to(device), SCALE, (0, 0, 0, step)).cpu()
        assert bool((codes * gradient >= 0).all())


def correlation_bound(count: int) -> float:
    """Bound the mean of ``count`` independent fair signs (Hoeffding, rate DELTA)."""
    return math.sqrt(2 * math.log(2 / DELTA) / count)


@pytest.mark.parametrize(
    "other",
    [(9, 2, 3, 4), (1, 9, 3, 4), (1, 2, 9, 4), (1, 2, 3, 5), (1, 2, 3, 4 + 2**32)],
    ids=["seed", "rank", "stream", "step", "high word of step"],
)
def test_other_keys_draw_uncorrelated_codes(device, other) -> None:
    """At half the scale codes are fair coins, and so are products of two draws."""
    half = torch.full((640_000,), 0.5, device=device)
    first, second = (draw(half, 1.0, key) * 2 - 1 for key in ((1, 2, 3, 4), other))
    assert abs(float((first * second).float().mean())) < correlation_bound(640_000)


def test_neighbours_draw_uncorrelated_codes(device) -> None:
    """Lags include those of lanes (1), slots (16, 64), groups (128), blocks (640)."""
    half = torch.full((640_000,), 0.5, device=device)
    signs = (draw(half, 1.0, (1, 2, 3, 4)) * 2 - 1).cpu().float()
    assert abs(float(signs.mean())) < correlation_bound(640_000)
    for lag in (1, 2, 4, 8, 16, 32, 64, 127, 128, 129, 256, 640, 4096, 65536):
        product = float((signs[lag:] * signs[:-lag]).mean())
        assert abs(product) < correlation_bound(640_000 - lag), lag

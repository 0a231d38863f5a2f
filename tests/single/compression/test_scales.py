"""Scale rules against torch's own statistics, per scale group."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd import ops
from knet_hvd.compression import TernaryConfig, local_scales
from knet_hvd.compression.scales import magnitude

SCALE_GROUPS = st.integers(0, 8).map(lambda groups: 128 * groups)


def scale_groups_of(values, scale_group_size):
    return values.reshape(-1).split(scale_group_size) if scale_group_size else [values.reshape(-1)]


@given(numel=st.integers(1, 5000), scale_group_size=SCALE_GROUPS, mean=st.floats(-2, 2))
def test_rms_and_std_rules_are_two_and_a_half_of_each(
    device, dtype, gradient, numel, scale_group_size, mean
) -> None:
    """The population's, in the shorter last scale group as well."""
    values = (gradient(numel, dtype, seed=numel) + mean).to(device)
    parts = [part.float().double() for part in scale_groups_of(values, scale_group_size)]
    for rule, expected in (
        ("rms", [float(2.5 * part.square().mean().sqrt()) for part in parts]),
        ("std", [float(2.5 * part.std(unbiased=False)) for part in parts]),
    ):
        config = TernaryConfig(scale_rule=rule, scale_group_size=scale_group_size)
        scales = local_scales([values], config)
        assert scales.dtype == torch.float32
        assert scales.tolist() == pytest.approx(expected, abs=1e-6)


@given(numel=st.integers(1, 5000), scale_group_size=SCALE_GROUPS)
def test_max_rule_is_the_largest_absolute_value(
    device, dtype, gradient, numel, scale_group_size
) -> None:
    values = gradient(numel, dtype, seed=numel).to(device)
    config = TernaryConfig(scale_rule="max", scale_group_size=scale_group_size)
    expected = [part.float().abs().max() for part in scale_groups_of(values, scale_group_size)]
    assert torch.equal(local_scales([values], config), torch.stack(expected))


@pytest.mark.parametrize("rule", ["rms", "std", "max"])
@pytest.mark.parametrize("bad", [torch.nan, -torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 128, 299])
def test_not_finite_gives_an_infinite_scale(device, dtype, rule, bad, place) -> None:
    """+inf, never NaN, which an MPI maximum over ranks may lose."""
    values = torch.linspace(-1, 1, 300).to(device, dtype)
    values[place] = bad
    config = TernaryConfig(scale_rule=rule, scale_group_size=128)
    infinite = [index == place // 128 for index in range(3)]
    assert local_scales([values], config).isposinf().tolist() == infinite
    assert local_scales([values], TernaryConfig(scale_rule=rule)).tolist() == [torch.inf]


@pytest.mark.parametrize("rule", ["rms", "std", "max"])
def test_zero_empty_and_scalar_gradients(device, dtype, rule) -> None:
    config = TernaryConfig(scale_rule=rule)
    for shape in ((1000,), (0,), (3, 0), ()):
        values = torch.zeros(shape, device=device, dtype=dtype)
        assert local_scales([values], config).tolist() == [0.0]
    empty = torch.zeros(0, device=device, dtype=dtype)
    assert local_scales([empty], TernaryConfig(scale_group_size=128)).tolist() == [0.0]
    one = torch.full((), -3.0, device=device, dtype=dtype)
    expected = {"rms": 7.5, "std": 0.0, "max": 3.0}[rule]
    assert local_scales([one], config).tolist() == [expected]


def test_a_large_mean_gives_no_negative_variance(device) -> None:
    values = torch.full((100_003,), 1e4 + 0.1, device=device)
    deviation = magnitude(values, TernaryConfig(scale_rule="std"))
    assert 0.0 <= deviation < 1.0


def test_clip_factor(device) -> None:
    values = torch.tensor([-1.0, 1.0] * 500, device=device)
    for config, expected in (
        (TernaryConfig(), 2.5),
        (TernaryConfig(clip_factor=3.0), 3.0),
        (TernaryConfig(error_feedback=True), 1.224),
        (TernaryConfig(error_feedback=True, clip_factor=2.0), 2.0),
    ):
        assert float(local_scales([values], config)) == pytest.approx(expected, rel=1e-6)


def test_statistics_of_integers_are_exact(device, dtype) -> None:
    values = ((torch.arange(10_001) % 17) - 8).to(device, dtype)
    parts = values.cpu().double().split(128)
    expected = [[float(p.sum()), float(p.square().sum())] for p in parts]
    assert ops.statistics([values], 128).tolist() == expected

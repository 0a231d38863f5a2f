"""Settings: what is refused, and which parameters stay in floating point."""

import pytest

from knet_hvd.compression import TernaryConfig

WRONG = [
    ({"wire_format": "trit6"}, r"wire_format: .*'trit5', 'crumb4'.* got 'trit6'"),
    ({"scale_rule": "median"}, "scale_rule: .*'rms', 'std', 'max'.*, got 'median'"),
    ({"clip_factor": 0.0}, "clip_factor: expected > 0, got 0.0"),
    ({"clip_factor": -2.5}, "clip_factor: expected > 0, got -2.5"),
    ({"clip_factor": float("nan")}, "clip_factor: expected > 0, got nan"),
    ({"scale_group_size": 100}, "scale_group_size: .*multiple of 128, got 100"),
    ({"scale_group_size": -128}, "scale_group_size: .*got -128"),
    ({"min_values": 0}, "min_values: expected at least 1, got 0"),
    ({"seed": -1}, "seed: expected 0 to .*got -1"),
    ({"seed": 2**32}, "seed: expected 0 to .*got 4294967296"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_settings_out_of_range(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        TernaryConfig(**settings)


def test_settings_at_the_edge_are_accepted() -> None:
    TernaryConfig(scale_group_size=128, min_values=1, seed=2**32 - 1, clip_factor=1e-3)


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        TernaryConfig().seed = 3  # type: ignore[misc]


def test_small_and_named_parameters_stay_float() -> None:
    config = TernaryConfig(min_values=100, float_parameters=("fc.*", "*.bias", "out"))
    cases = {
        **{("conv.weight", 100): False, ("conv.weight", 99): True},
        **{("fc.weight", 10**6): True, ("fc2.weight", 10**6): False},
        **{("conv.bias", 10**6): True, ("out", 10**6): True, ("output", 10**6): False},
        ("FC.weight", 10**6): False,
    }
    for (name, numel), expected in cases.items():
        assert config.stays_float(name, numel) is expected, (name, numel)

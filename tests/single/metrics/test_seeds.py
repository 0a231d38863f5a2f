"""The table of several seeds."""

from typing import Any

import pytest

from knet_hvd.metrics.seeds import seeds_table


def summary(seed: int, accuracy: float) -> dict[str, Any]:
    return {
        "config": {"seed": seed},
        "test_accuracy": accuracy,
        "samples_per_second": 1000.0,
        "wire_bytes_per_step": 2500.0,
    }


def test_rows_are_in_the_order_of_seeds_with_mean_and_deviation() -> None:
    rows = seeds_table([summary(10, 0.9), summary(2, 0.7)]).splitlines()[2:]
    assert rows == [
        "| 2 | 0.7000 | 1000 | 2.5 |",
        "| 10 | 0.9000 | 1000 | 2.5 |",
        "| mean of 2 | 0.8000 | 1000 | 2.5 |",
        "| deviation | 0.1414 | 0 | 0.0 |",
    ]


def test_one_seed_has_no_deviation() -> None:
    assert "deviation" not in seeds_table([summary(0, 0.5)])


@pytest.mark.parametrize(
    ("summaries", "message"),
    [([], "at least one seed, got none"), ([summary(1, 0.5)] * 2, "different seeds")],
)
def test_no_seeds_and_equal_seeds_are_refused(summaries: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        seeds_table(summaries)


def test_a_summary_that_lacks_a_value_is_refused() -> None:
    with pytest.raises(KeyError, match="wire_bytes_per_step"):
        seeds_table([{"config": {"seed": 0}, "test_accuracy": 1.0}])

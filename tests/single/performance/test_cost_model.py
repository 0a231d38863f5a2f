"""The cost model: curves through measured points, other numbers of ranks, advice."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.performance import (
    ALLGATHER,
    ALLTOALL,
    FP16,
    FP32,
    CostModel,
    ExchangeFormula,
    MethodCost,
    TimeCurve,
    advise,
)

SECONDS = st.floats(1e-4, 10)
FORMULAS = {formula.name: formula for formula in (FP32, FP16, ALLGATHER, ALLTOALL)}


def line(ns: float) -> TimeCurve:
    return TimeCurve((1e3, 1e6), (1e-3, 1e-3 + ns * 1e-9 * (1e6 - 1e3)))


def model(num_ranks: int = 2, **slopes: float) -> CostModel:
    """Return a model whose methods take 1 ms and so many ns for each value."""
    costs = {
        method: MethodCost(
            FORMULAS[method], TimeCurve((1e3, 1e6), (1e-3, 1e-3 + ns * 1e-9 * (1e6 - 1e3))), 1e-4
        )
        for method, ns in slopes.items()
    }
    return CostModel(num_ranks, costs, dict.fromkeys(slopes, 0.0))


@given(st.lists(SECONDS, min_size=2, max_size=6).map(sorted), st.floats(0, 1e9))
def test_a_curve_never_falls(seconds: list[float], size: float) -> None:
    sizes = tuple(float(10**i) for i in range(len(seconds)))
    curve = TimeCurve(sizes, tuple(seconds))
    assert curve.at(size) >= seconds[0]
    assert curve.at(2 * size) >= curve.at(size) * (1 - 1e-12)


def test_a_curve_goes_through_its_points_and_on_beyond_them() -> None:
    curve = TimeCurve((1.0, 3.0, 5.0), (1.0, 2.0, 6.0))
    assert [curve.at(size) for size in (0, 1, 2, 3, 4, 5, 7)] == [1, 1, 1.5, 2, 4, 6, 10]


@pytest.mark.parametrize(
    ("sizes", "seconds"), [((1.0,), (1.0,)), ((1.0, 2.0), (1.0,)), ((2.0, 1.0), (1, 1))]
)
def test_a_curve_needs_rising_points(sizes: tuple, seconds: tuple) -> None:
    with pytest.raises(ValueError, match=r"expected to rise|two or more sizes"):
        TimeCurve(sizes, seconds)


def test_the_efficient_size_is_the_smallest_that_is_nearly_as_fast() -> None:
    curve = TimeCurve((1, 10, 100, 1000), (5.0, 10.5, 100.0, 1100.0))
    assert curve.efficient_size() == 10  # 1.05 a unit, where 1.0 is the best
    assert curve.efficient_size(tolerance=0.01) == 100
    falling = TimeCurve((1, 10, 100), (5.0, 6.0, 7.0))
    assert falling.efficient_size() == 100


def test_values_and_tensors_cost() -> None:
    assert model(fp32=50.0).exchange_s("fp32", 1e6, 11) == pytest.approx(
        1e-3 + 50e-9 * (1e6 - 1e3) + 10 * 1e-4
    )


def test_a_gradient_that_is_not_copied_is_faster() -> None:
    cost = MethodCost(FP32, TimeCurve((1e3, 1e6), (1.0, 10.0)), 1e-4, unfused_share=0.7)
    assert cost.exchange_s(1e6, 1, unfused_values=0) == 10
    assert cost.exchange_s(1e6, 1, unfused_values=1e6) == pytest.approx(7)
    assert cost.exchange_s(1e6, 1, unfused_values=0.5e6) == pytest.approx(8.5)
    slow = model(fp32=50.0, allgather=40.0)
    quick = replace(slow.methods["fp32"], unfused_share=0.5)
    slow = replace(slow, methods={**slow.methods, "fp32": quick})
    assert advise(slow, 1e6, 1).compresses
    assert not advise(slow, 1e6, 1, unfused_values=1e6).compresses


def test_an_unknown_method_is_named() -> None:
    with pytest.raises(ValueError, match="fp32, fp16; got 'alltoall'"):
        model(fp32=1, fp16=1).exchange_s("alltoall", 1)


def test_backward_hides_an_exchange_only_as_far_as_told() -> None:
    built = model(fp32=100.0)
    exchange_s = built.exchange_s("fp32", 1e6)
    times = [
        built.step_s("fp32", 1e6, compute_s=0.3, backward_s=0.2, overlap=overlap)
        for overlap in (0.0, 0.25, 1.0)
    ]
    expected = [0.3 + exchange_s, 0.3 + exchange_s - 0.05, 0.3]
    assert times == pytest.approx(expected)


@pytest.mark.parametrize(
    ("formula", "num_ranks", "bits"),
    [
        (FP32, 2, 32),
        (FP32, 4, 48),
        (FP16, 2, 16),
        (ALLGATHER, 2, 1.6),
        (ALLGATHER, 4, 4.8),
        (ALLTOALL, 4, 0.75 * (1.6 + 3.2)),
    ],
)
def test_wire_bits_are_those_of_the_design(
    formula: ExchangeFormula, num_ranks: int, bits: float
) -> None:
    assert formula.wire_bits(num_ranks, 1.6) == pytest.approx(bits)


def test_the_network_part_grows_as_the_bytes_do() -> None:
    built = model(fp32=100.0, allgather=10.0)
    larger = built.at_ranks(4)
    for method, growth in (("fp32", 1.5), ("allgather", 3.0)):
        before, after = built.methods[method].curve, larger.methods[method].curve
        assert after.slope_s == pytest.approx(growth * before.slope_s)
    assert larger.num_ranks == 4


@given(st.integers(2, 512))
def test_the_calibrated_number_of_ranks_changes_nothing(num_ranks: int) -> None:
    built = model(num_ranks, **dict.fromkeys(FORMULAS, 20.0))
    same = built.at_ranks(num_ranks)
    for method in FORMULAS:
        assert same.exchange_s(method, 1e7) == pytest.approx(built.exchange_s(method, 1e7))


def test_one_rank_has_no_model() -> None:
    with pytest.raises(ValueError, match="2 calibrated and 1 wanted"):
        model(fp32=1.0).at_ranks(1)


def test_advice_takes_the_fastest_where_it_is_worth_it() -> None:
    advice = advise(model(fp32=100.0, fp16=50.0, allgather=5.0), 1e8)
    assert advice.method == "allgather"
    assert advice.compresses
    assert "20.0 times faster than fp32" in str(advice)


@pytest.mark.parametrize(("slope", "text"), [(12.0, "1.5 times faster"), (7.6, "only")])
def test_advice_says_plainly_not_to_compress(slope: float, text: str) -> None:
    advice = advise(model(fp32=8.0, alltoall=slope), 1e9)
    assert advice.method == "fp32"
    assert not advice.compresses
    assert str(advice).startswith("do not compress here")
    assert text in str(advice)


def test_advice_needs_something_to_compare() -> None:
    with pytest.raises(ValueError, match="got fp32"):
        advise(model(fp32=1.0), 1e6)

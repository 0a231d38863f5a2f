"""Placement: as good as the best of all plans, within memory."""

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knet_hvd.errors import KnetError
from knet_hvd.pipeline.placement.search import Costs, place

TIMES = st.integers(0, 30)


def table_costs(
    blocks: list[list[int]],
    links: list[list[int]],
    cuts: list[int],
    sizes: list[int],
    limits: list[int | None],
) -> Costs:
    """Return costs from the time of each block on each rank, and so on."""
    return Costs(
        num_blocks=len(sizes),
        num_ranks=len(blocks),
        stage_s=lambda rank, start, stop: float(sum(blocks[rank][start:stop])),
        cut_s=lambda cut, source, target: float(cuts[cut] * links[source][target]),
        stage_bytes=lambda start, stop: sum(sizes[start:stop]),
        limits_bytes=limits,
    )


@st.composite
def all_costs(draw: st.DrawFn) -> Costs:
    num_blocks = draw(st.integers(1, 12))
    num_ranks = draw(st.integers(1, min(4, num_blocks)))

    def row(length: int, values: st.SearchStrategy = TIMES) -> list:
        return draw(st.lists(values, min_size=length, max_size=length))

    return table_costs(
        [row(num_blocks) for _ in range(num_ranks)],
        [row(num_ranks, st.integers(0, 3)) for _ in range(num_ranks)],
        row(num_blocks),
        row(num_blocks),
        row(num_ranks, st.one_of(st.none(), st.integers(0, 200))),
    )


def step_seconds(costs: Costs, cuts: tuple[int, ...], order: tuple[int, ...]) -> float:
    """Return the time of the slowest stage or link; infinite if memory is too small."""
    bounds = [0, *cuts, costs.num_blocks]
    parts = []
    for stage, rank in enumerate(order):
        start, stop = bounds[stage], bounds[stage + 1]
        if not costs.fits(rank, start, stop):
            return float("inf")
        parts.append(costs.stage_s(rank, start, stop))
        if stage:
            parts.append(costs.cut_s(start, order[stage - 1], rank))
    return max(parts)


@settings(max_examples=300, deadline=None)
@given(costs=all_costs())
def test_no_other_plan_is_faster(costs: Costs) -> None:
    least = min(
        step_seconds(costs, cuts, order)
        for cuts in combinations(range(1, costs.num_blocks), costs.num_ranks - 1)
        for order in permutations(range(costs.num_ranks))
    )
    if least == float("inf"):
        with pytest.raises(KnetError, match="fits the memory of"):
            place(costs)
        return
    plan = place(costs)
    assert plan.step_s == least
    assert step_seconds(costs, plan.cuts, plan.order) == least


def test_a_slow_rank_gets_less() -> None:
    costs = table_costs([[1] * 12, [3] * 12], [[0, 0]] * 2, [0] * 12, [1] * 12, [None] * 2)
    plan = place(costs)
    assert (plan.cuts, plan.order, plan.step_s) == ((3,), (1, 0), 9.0)


def test_memory_comes_before_speed() -> None:
    costs = table_costs([[1] * 6, [9] * 6], [[0, 0]] * 2, [0] * 6, [10] * 6, [20, None])
    plan = place(costs)
    sizes = dict(zip(plan.order, (plan.cuts[0], 6 - plan.cuts[0]), strict=True))
    assert sizes == {0: 2, 1: 4}


def test_a_slow_link_is_avoided() -> None:
    links = [[0, 100, 1], [100, 0, 1], [1, 1, 0]]
    costs = table_costs([[1] * 6] * 3, links, [1] * 6, [1] * 6, [None] * 3)
    assert place(costs).order[1] == 2, "rank 2 has fast links to both others"


def test_more_ranks_than_blocks() -> None:
    costs = table_costs([[1]] * 2, [[0, 0]] * 2, [1], [1], [None] * 2)
    with pytest.raises(ValueError, match="expected 1 to 1 for 1 blocks, got 2"):
        place(costs)

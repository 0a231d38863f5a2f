"""Place blocks on unequal ranks so that the slowest stage is as fast as can be.

Stages of a decoupled pipeline work at the same time, and so do links: a step takes as
long as the slowest of them. Every rank gets a run of blocks; both the cuts and the
order of the ranks are chosen.

Dynamic programming over (blocks placed, ranks used, last rank): the least time of the
slowest part so far. It is exact, since what follows depends on nothing else. The work
grows with the square of the blocks and with 2^ranks * ranks^2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from knet_hvd.errors import KnetError

MAX_RANKS = 12


@dataclass(frozen=True, slots=True)
class Costs:
    """Say what a stage and a cut cost.

    Attributes:
        num_blocks: Blocks of the network.
        num_ranks: Ranks, all of which get a stage.
        stage_s: Seconds a step of the blocks [start, stop) on a rank.
        cut_s: Seconds a step of what crosses before a block, from a rank to another.
        stage_bytes: Memory of the blocks [start, stop).
        limits_bytes: Memory of each rank; None where it does not matter.
        block_s: Seconds a step of one block on a rank, without any decoupler; only to
            be shown, so it may be missing.
    """

    num_blocks: int
    num_ranks: int
    stage_s: Callable[[int, int, int], float]
    cut_s: Callable[[int, int, int], float]
    stage_bytes: Callable[[int, int], int]
    limits_bytes: Sequence[int | None]
    block_s: Callable[[int, int], float] | None = None

    def fits(self, rank: int, start: int, stop: int) -> bool:
        """Return whether a rank's memory holds the blocks [start, stop)."""
        limit = self.limits_bytes[rank]
        return limit is None or self.stage_bytes(start, stop) <= limit


@dataclass(frozen=True, slots=True)
class Plan:
    """Say which blocks go where.

    Attributes:
        cuts: Blocks before each cut.
        order: The rank of each stage; with replicas all of its ranks, stage by stage.
        step_s: Seconds a step of the slowest stage or link.
        block_s: Seconds a step of each block where it is placed; empty if not measured.
        stage_s: Seconds a step of each stage, with its decoupler; empty likewise.
    """

    cuts: tuple[int, ...]
    order: tuple[int, ...]
    step_s: float
    block_s: tuple[float, ...] = ()
    stage_s: tuple[float, ...] = ()


def place(costs: Costs) -> Plan:
    """Return the plan whose slowest stage or link takes the least time.

    Args:
        costs: Of all stages and cuts.

    Returns:
        The best plan; of equally good ones the first by cuts and order.

    Raises:
        KnetError: If no plan fits the ranks' memory.
        ValueError: If there are more ranks than blocks, or more than 12 ranks.
    """
    if not 1 <= costs.num_ranks <= min(costs.num_blocks, MAX_RANKS):
        raise ValueError(
            f"ranks: expected 1 to {min(costs.num_blocks, MAX_RANKS)} for "
            f"{costs.num_blocks} blocks, got {costs.num_ranks}"
        )
    best: dict[_State, Plan] = {(0, 0, -1): Plan((), (), 0.0)}
    for _ in range(costs.num_ranks):
        best = _extend(best, costs)
    complete = [plan for (placed, _, _), plan in best.items() if _is_all(placed, costs)]
    if not complete:
        raise KnetError(
            f"no placement of {costs.num_blocks} blocks fits the memory of "
            f"{costs.num_ranks} ranks, {list(costs.limits_bytes)} bytes: raise a limit "
            "or take more ranks"
        )
    plan = min(complete, key=_rank_plans)
    return _with_times(Plan(plan.cuts[:-1], plan.order, plan.step_s), costs)


def _with_times(plan: Plan, costs: Costs) -> Plan:
    """Return the plan with the time of each block and stage, for a reader."""
    if costs.block_s is None:
        return plan
    bounds = [0, *plan.cuts, costs.num_blocks]
    stages = list(zip(plan.order, bounds, bounds[1:], strict=False))
    block_s = tuple(
        costs.block_s(rank, block) for rank, start, stop in stages for block in range(start, stop)
    )
    stage_s = tuple(costs.stage_s(*stage) for stage in stages)
    return replace(plan, block_s=block_s, stage_s=stage_s)


_State = tuple[int, int, int]
"""Blocks placed, ranks used as bits, and the last rank."""


def _is_all(placed: int, costs: Costs) -> bool:
    return placed == costs.num_blocks


def _rank_plans(plan: Plan) -> tuple[float, tuple[int, ...], tuple[int, ...]]:
    return plan.step_s, plan.cuts, plan.order


def _extend(best: dict[_State, Plan], costs: Costs) -> dict[_State, Plan]:
    """Add one stage to every partial plan, and keep the best of each state."""
    longer: dict[_State, Plan] = {}
    for (start, used, last), plan in best.items():
        remaining = costs.num_ranks - len(plan.order) - 1
        for rank in range(costs.num_ranks):
            if used >> rank & 1:
                continue
            arrival_s = costs.cut_s(start, last, rank) if last >= 0 else 0.0
            for stop in range(start + 1, costs.num_blocks - remaining + 1):
                if not costs.fits(rank, start, stop):
                    continue
                step_s = max(plan.step_s, arrival_s, costs.stage_s(rank, start, stop))
                grown = Plan((*plan.cuts, stop), (*plan.order, rank), step_s)
                state = (stop, used | 1 << rank, rank)
                if state not in longer or _rank_plans(grown) < _rank_plans(longer[state]):
                    longer[state] = grown
    return longer

"""Place stages that have replicas: on groups of ranks instead of single ranks."""

from dataclasses import replace

from knet_hvd.pipeline.placement.search import Costs, Plan


def group_costs(costs: Costs, replicas: int) -> Costs:
    """Return the costs of groups of neighboring ranks.

    Replicas wait for each other in every step, so a group is as fast as its slowest
    rank, and holds as much as its smallest.

    Args:
        costs: Of single ranks.
        replicas: Ranks a group, a divisor of their number.
    """

    def members(group: int) -> range:
        return range(group * replicas, (group + 1) * replicas)

    def cut_s(cut: int, source: int, target: int) -> float:
        pairs = zip(members(source), members(target), strict=True)
        return max(costs.cut_s(cut, one, other) for one, other in pairs)

    def block_s(group: int, block: int) -> float:
        seconds = costs.block_s
        if seconds is None:
            return 0.0
        return max(seconds(rank, block) for rank in members(group))

    def limit(group: int) -> int | None:
        limits = [costs.limits_bytes[rank] for rank in members(group)]
        return min((each for each in limits if each is not None), default=None)

    num_groups = costs.num_ranks // replicas
    return Costs(
        num_blocks=costs.num_blocks,
        num_ranks=num_groups,
        stage_s=lambda group, start, stop: max(
            costs.stage_s(rank, start, stop) for rank in members(group)
        ),
        cut_s=cut_s,
        stage_bytes=costs.stage_bytes,
        limits_bytes=[limit(group) for group in range(num_groups)],
        block_s=block_s,
    )


def ranks_of_groups(plan: Plan, replicas: int) -> Plan:
    """Return the plan of single ranks: each stage's replicas one after the other.

    Args:
        plan: Of groups.
        replicas: Ranks a group.
    """
    order = tuple(group * replicas + replica for group in plan.order for replica in range(replicas))
    return replace(plan, order=order)

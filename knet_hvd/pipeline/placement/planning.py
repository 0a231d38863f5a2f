"""Decide which blocks go to which rank: equally many, or by measurement."""

import json
from collections.abc import Sequence

import torch

from knet_hvd.comm import Mesh, World, measure_links
from knet_hvd.comm.throttle import Throttle
from knet_hvd.devices import CPU
from knet_hvd.pipeline.activation import on_device
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.placement.cuts import check_cuts, equal_cuts, output_signatures
from knet_hvd.pipeline.placement.decoupler_trial import DecouplerTrial
from knet_hvd.pipeline.placement.profile import gather_profiles, memory_bytes, profile_blocks
from knet_hvd.pipeline.placement.replica_groups import group_costs, ranks_of_groups
from knet_hvd.pipeline.placement.search import Costs, Plan, place
from knet_hvd.pipeline.spec import PipelineSpec


def plan_by_cuts(
    num_ranks: int, num_blocks: int, num_stages: int, cuts: tuple[int, ...] = ()
) -> Plan:
    """Return a plan of stages on ranks in their order.

    Args:
        num_ranks: All ranks, a multiple of the stages.
        num_blocks: Blocks of the network.
        num_stages: Stages.
        cuts: Blocks before each cut; if none are given, stages of equally many blocks.

    Raises:
        ValueError: If the cuts do not leave each stage a block.
    """
    cuts = cuts or equal_cuts(num_blocks, num_stages)
    check_cuts(cuts, num_blocks, num_stages)
    return Plan(cuts, tuple(range(num_ranks)), 0.0)


def plan_by_costs(costs: Costs, replicas: int) -> Plan:
    """Return the plan whose slowest stage or link takes the least time.

    Args:
        costs: What `measure_costs` found.
        replicas: Replicas of each stage.

    Raises:
        KnetError: If no placement fits the ranks' memory.
        ValueError: If there are more stages than blocks.
    """
    return ranks_of_groups(place(group_costs(costs, replicas)), replicas)


def measure_costs(
    spec: PipelineSpec,
    world: World,
    links: LinkSettings,
    *,
    memory_limits_bytes: Sequence[int | None] = (),
    values_per_parameter: int = 2,
    throttle: Throttle | None = None,
    device: torch.device = CPU,
) -> Costs:
    """Measure blocks and links, and return what all ranks found; all have to call.

    Args:
        spec: What the stages are built from.
        world: All ranks.
        links: How tensors cross.
        memory_limits_bytes: Memory of each rank, None for no limit; later ranks have none.
        values_per_parameter: Values that the optimizer keeps for each parameter.
        throttle: Makes this rank slower, for tests.
        device: Of this rank.
    """
    outputs = output_signatures(spec.builder, spec.example)
    torch.manual_seed(spec.seed or 0)
    with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bf16"):
        own = profile_blocks(
            spec.builder,
            on_device(spec.random_inputs(), device),
            DecouplerTrial(spec, device),
            throttle or Throttle(),
            device,
        )
    profiles = gather_profiles(world, own)
    speeds = measure_links(world)
    sizes = memory_bytes(
        spec.builder.skeleton, outputs, spec.num_microbatches, values_per_parameter
    )
    limits: list[int | None] = [*memory_limits_bytes, *[None] * world.size][: world.size]

    def cut_s(cut: int, source: int, target: int) -> float:
        # Which cut this will be is not known yet, so the first encoding stands for all.
        num_bytes = outputs[cut - 1].num_bytes(links.activation_encodings[0])
        return speeds[source, target].seconds(num_bytes)

    replays = spec.decoupler.replays
    return Costs(
        num_blocks=len(sizes),
        num_ranks=world.size,
        stage_s=lambda rank, start, stop: profiles[rank].stage_s(start, stop, replays),
        cut_s=cut_s,
        stage_bytes=lambda start, stop: sum(sizes[start:stop]),
        limits_bytes=limits,
        block_s=lambda rank, block: profiles[rank].train_s[block],
    )


def plan_table(plan: Plan, names: Sequence[str]) -> str:
    """Return a table of the plan, in Markdown.

    Args:
        plan: The plan; where it was measured, the table shows milliseconds a step of
            each block, and of each stage with its decoupler.
        names: Of the blocks.
    """
    bounds = [0, *plan.cuts, len(names)]
    mesh = mesh_of(plan)
    blocks = list(names)
    if plan.block_s:
        times = zip(names, plan.block_s, strict=True)
        blocks = [f"{name} {_milliseconds(seconds)}" for name, seconds in times]
    rows = []
    for stage in range(mesh.num_stages):
        own = ", ".join(blocks[bounds[stage] : bounds[stage + 1]])
        row = f"| {stage} | {', '.join(map(str, mesh.replicas(stage)))} | {own} |"
        if plan.stage_s:
            row += f" {_milliseconds(plan.stage_s[stage])} |"
        rows.append(row)
    if plan.stage_s:
        heads = ["| stage | rank | blocks, ms a step | ms a step |", "|-|-|-|-|"]
    else:
        heads = ["| stage | rank | blocks |", "|-|-|-|"]
    return "\n".join([*heads, *rows])


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def mesh_of(plan: Plan) -> Mesh:
    """Return which rank is which stage."""
    stages = len(plan.cuts) + 1
    return Mesh(stages, len(plan.order) // stages, plan.order)


def plan_facts(plan: Plan) -> dict[str, str]:
    """Return the plan as facts that all ranks have to agree on."""
    return {"cuts": json.dumps(plan.cuts), "order": json.dumps(plan.order)}

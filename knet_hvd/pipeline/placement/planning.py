"""Decide which blocks go to which rank: equally many, or by measurement."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from knet_hvd.comm import Mesh, World, measure_links
from knet_hvd.comm.encodings import max_payload_bytes
from knet_hvd.comm.throttle import throttle_of
from knet_hvd.models import BlockBuilder
from knet_hvd.pipeline.decouplers.delayed import Delayed
from knet_hvd.pipeline.decouplers.registry import decoupler_class, make_decoupler
from knet_hvd.pipeline.placement.cuts import check_cuts, equal_cuts
from knet_hvd.pipeline.placement.profile import (
    BlockProfile,
    gather_profiles,
    memory_bytes,
    profile_blocks,
)
from knet_hvd.pipeline.placement.replica_groups import group_costs, ranks_of_groups
from knet_hvd.pipeline.placement.search import Costs, Plan, place
from knet_hvd.pipeline.replicas.base import num_stages
from knet_hvd.pipeline.stage import Batch, Stage

if TYPE_CHECKING:
    from knet_hvd.training.pipeline.config import PipelineConfig

_STATES = {"sgd": 0, "momentum": 1, "adam": 2}
_MEGABYTE = 10**6


def plan_stages(
    config: PipelineConfig,
    world: World,
    shapes: Sequence[tuple[int, ...]],
    in_shape: tuple[int, int, int],
    num_classes: int,
) -> Plan:
    """Return the cuts and the ranks of each stage, replica by replica.

    Args:
        config: The job's configuration.
        world: All ranks; every rank has to call.
        shapes: Of each block's output, for one image.
        in_shape: Channels, height and width of an image.
        num_classes: The number of logits.

    Raises:
        ValueError: If configured cuts do not leave each stage a block.
        KnetError: If no placement fits the ranks' memory.
    """
    number = num_stages(config, world.size)
    if config.cuts or config.placement == "equal":
        cuts = config.cuts or equal_cuts(len(shapes), number)
        check_cuts(cuts, len(shapes), number)
        return Plan(cuts, tuple(range(world.size)), 0.0)
    costs = measure_costs(config, world, shapes, in_shape, num_classes)
    groups = place(group_costs(costs, config.replicas))
    return ranks_of_groups(groups, config.replicas)


def measure_costs(
    config: PipelineConfig,
    world: World,
    shapes: Sequence[tuple[int, ...]],
    in_shape: tuple[int, int, int],
    num_classes: int,
) -> Costs:
    """Measure blocks and links, and return what all ranks found; all have to call.

    Args:
        config: The job's configuration.
        world: All ranks.
        shapes: Of each block's output, for one image.
        in_shape: Channels, height and width of an image.
        num_classes: The number of logits.
    """
    torch.manual_seed(config.seed)
    builder = BlockBuilder(
        config.model,
        in_shape=in_shape,
        num_classes=num_classes,
        width=config.width,
        layerwise=config.layerwise,
    )
    inputs = torch.randn(config.microbatch_size, *in_shape)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
        own = profile_blocks(
            builder,
            inputs.contiguous(memory_format=torch.channels_last),
            _DecouplerTrial(config, num_classes),
            throttle_of(world, config.slow_rank),
        )
    profiles = gather_profiles(world, own)
    links = measure_links(world)
    sizes = memory_bytes(
        builder.skeleton, shapes, config.batch_size, num_states=_STATES[config.optimizer]
    )
    kind = decoupler_class(config.decoupler)

    def cut_s(cut: int, source: int, target: int) -> float:
        values = config.microbatch_size * math.prod(shapes[cut - 1])
        num_bytes = max_payload_bytes(values, config.activation_encodings[0])
        return links[source, target].seconds(num_bytes)

    replays = kind is Delayed and config.recompute
    return _costs(config, profiles, cut_s, sizes, replays=replays)


def _costs(
    config: PipelineConfig,
    profiles: Sequence[BlockProfile],
    cut_s: Any,
    sizes: Sequence[int],
    *,
    replays: bool,
) -> Costs:
    limits: list[int | None] = [None] * len(profiles)
    for rank, megabytes in enumerate(config.memory_limits_mb):
        limits[rank] = int(megabytes * _MEGABYTE) if megabytes > 0 else None
    return Costs(
        num_blocks=len(sizes),
        num_ranks=len(profiles),
        stage_s=lambda rank, start, stop: profiles[rank].stage_s(start, stop, replays),
        cut_s=cut_s,
        stage_bytes=lambda start, stop: sum(sizes[start:stop]),
        limits_bytes=limits,
        block_s=lambda rank, block: profiles[rank].train_s[block],
    )


class _DecouplerTrial:
    """Run a fresh decoupler on an output, to see how long it takes."""

    def __init__(self, config: PipelineConfig, num_classes: int) -> None:
        self._config = config
        self._num_classes = num_classes
        self._made: dict[int, Any] = {}

    def __call__(self, output: Tensor) -> None:
        if id(output) not in self._made:
            shape = tuple(output.shape[1:])
            self._made = {id(output): make_decoupler(self._config, shape, self._num_classes)}
        decoupler = self._made[id(output)]
        blocks = nn.Sequential(nn.Identity())
        stage = Stage(0, 2, blocks, None, self._config.precision)
        labels = torch.zeros(len(output), dtype=torch.int64)
        inputs = output.detach().float().requires_grad_()
        batch = Batch(0, 0, labels, len(output), False, inputs)
        decoupler.forward(stage, batch)
        decoupler.learn(stage, batch)
        if decoupler.gradients_return:
            decoupler.learn_from(stage, batch, torch.zeros_like(inputs))


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

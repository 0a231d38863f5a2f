"""Decide which blocks of a user's network are on which ranks, and give them rank 0's values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from knet_hvd.comm import World, check_agreement
from knet_hvd.comm.throttle import Throttle
from knet_hvd.comm.transfer import broadcast_tensors
from knet_hvd.devices.random_state import own_random_states
from knet_hvd.pipeline.blocks.given import state_tensors
from knet_hvd.pipeline.blocks.sharing import check_not_shared
from knet_hvd.pipeline.blocks.user_model import UserModel
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.placement.cuts import num_stages
from knet_hvd.pipeline.placement.planning import (
    measure_costs,
    plan_by_costs,
    plan_by_cuts,
    plan_facts,
)
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.spec import PipelineSpec

Cuts: TypeAlias = Literal["equal", "measured"] | Sequence[int]
_MEASURED_ROWS = 32
"""Samples of a batch to measure with, where no batch size is given."""
_MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True, slots=True)
class Placing:
    """Say how blocks are placed.

    Attributes:
        cuts: equal: as many blocks to each stage; measured: so that the slowest stage or link is
            as fast as can be; or the number of blocks before each cut.
        memory_limits_mb: Of each rank where it is measured, in millions of bytes; 0 for no
            limit. Later ranks have none.
        values_per_parameter: Values that the optimizer keeps for each parameter.
        throttle: Makes this rank slower, for tests.
        saved: The plan of a checkpoint, which measuring again might not find.
    """

    cuts: Cuts = "equal"
    memory_limits_mb: Sequence[float] = ()
    values_per_parameter: int = 2
    throttle: Throttle | None = None
    saved: Plan | None = None

    def __post_init__(self) -> None:
        if isinstance(self.cuts, str) and self.cuts not in ("equal", "measured"):
            raise ValueError(
                f"cuts: expected equal, measured or numbers of blocks, got {self.cuts!r}"
            )
        if any(not each >= 0 for each in self.memory_limits_mb):
            raise ValueError(
                f"memory_limits_mb: expected 0 or more, got {list(self.memory_limits_mb)}"
            )

    @property
    def measured(self) -> bool:
        """Return whether ranks and blocks are measured."""
        return self.cuts == "measured"

    @property
    def limits_bytes(self) -> list[int | None]:
        """Return the memory of each rank; None for no limit."""
        return [int(_MEGABYTE * each) if each > 0 else None for each in self.memory_limits_mb]


def place_blocks(
    world: World,
    model: UserModel,
    spec: PipelineSpec,
    placing: Placing,
    links: LinkSettings,
    rows: int | None,
    device: torch.device,
    replicas: int = 1,
) -> Plan:
    """Return which blocks are on which ranks, the same on every rank; all have to call.

    Args:
        world: All ranks.
        model: The user's.
        spec: What the stages are built from.
        placing: How.
        links: How tensors cross.
        rows: Samples of a microbatch, if they are known.
        device: Of this rank.
        replicas: Replicas of each stage.

    Raises:
        KnetError: If no placement fits the ranks' memory.
        RankMismatchError: If ranks differ in the model or in how it is cut.
        ValueError: If it cannot be cut so, or two stages would share a parameter.
    """
    _check_same_model(world, model, placing.cuts)
    stages = num_stages(world.size, replicas)
    if not placing.measured:
        chosen = () if placing.cuts == "equal" else tuple(int(cut) for cut in placing.cuts)
        plan = plan_by_cuts(world.size, len(model.source), stages, chosen)
    elif placing.saved is not None:
        plan = placing.saved
    else:
        plan = _measured_plan(
            world, spec.with_rows(rows or _MEASURED_ROWS), placing, links, device, replicas
        )
    check_agreement(world, plan_facts(plan), "the placement")
    bounds = [0, *plan.cuts, len(model.source)]
    stage_of_block = [s for s in range(stages) for _ in range(bounds[s], bounds[s + 1])]
    check_not_shared(model.blocks, model.prefixes, stage_of_block)
    return plan


def _measured_plan(
    world: World,
    spec: PipelineSpec,
    placing: Placing,
    links: LinkSettings,
    device: torch.device,
    replicas: int,
) -> Plan:
    with own_random_states(device):
        costs = measure_costs(
            spec,
            world,
            links,
            memory_limits_bytes=placing.limits_bytes,
            values_per_parameter=placing.values_per_parameter,
            throttle=placing.throttle,
            device=device,
        )
    return plan_by_costs(costs, replicas)


def _check_same_model(world: World, model: UserModel, cuts: Cuts) -> None:
    """Raise if ranks hold other parameters, or cut otherwise."""
    facts: dict[str, object] = {
        prefix + key: f"{value.dtype} {list(value.shape)}"
        for prefix, block in zip(model.prefixes, model.blocks, strict=True)
        for key, value in block.state_dict().items()
    }
    facts["cuts"] = cuts if isinstance(cuts, str) else list(cuts)
    check_agreement(world, facts, "the model", same_names=True)


def take_values(world: World, model: UserModel) -> None:
    """Give a network that exists already the values of rank 0; every rank has to call."""
    if model.network is not None:
        broadcast_tensors(world, state_tensors(model.network))

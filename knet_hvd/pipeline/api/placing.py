"""Decide which blocks of a user's network are on which ranks, and give them rank 0's values."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch

from knet_hvd.comm import World, check_agreement
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


def place_blocks(
    world: World,
    model: UserModel,
    spec: PipelineSpec,
    cuts: Cuts,
    links: LinkSettings,
    batch_size: int | None,
    device: torch.device,
    replicas: int = 1,
) -> Plan:
    """Return which blocks are on which ranks, the same on every rank; all have to call.

    Args:
        world: All ranks.
        model: The user's.
        spec: What the stages are built from.
        cuts: equal, measured, or blocks before each cut.
        links: How tensors cross.
        batch_size: Samples of a replica's share of a batch, if they are known.
        device: Of this rank.
        replicas: Replicas of each stage.

    Raises:
        RankMismatchError: If ranks differ in the model or in how it is cut.
        ValueError: If it cannot be cut so, or two stages would share a parameter.
    """
    _check_same_model(world, model, cuts)
    stages = num_stages(world.size, replicas)
    if isinstance(cuts, str) and cuts == "measured":
        with own_random_states(device):
            measured = spec.with_rows(batch_size or _MEASURED_ROWS)
            plan = plan_by_costs(measure_costs(measured, world, links, device=device), replicas)
    elif isinstance(cuts, str) and cuts != "equal":
        raise ValueError(f"cuts: expected equal, measured or numbers of blocks, got {cuts!r}")
    else:
        chosen = () if isinstance(cuts, str) else tuple(int(cut) for cut in cuts)
        plan = plan_by_cuts(world.size, len(model.source), stages, chosen)
    check_agreement(world, plan_facts(plan), "the placement")
    bounds = [0, *plan.cuts, len(model.source)]
    stage_of_block = [s for s in range(stages) for _ in range(bounds[s], bounds[s + 1])]
    check_not_shared(model.blocks, model.prefixes, stage_of_block)
    return plan


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

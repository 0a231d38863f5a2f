"""Which checkpoints a pipeline job may continue from, and how."""

import json
from dataclasses import replace

from knet_hvd.checkpoint import Manifest, check_same_configuration
from knet_hvd.comm import World
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar, to_flat_dict
from knet_hvd.pipeline.placement.cuts import num_stages
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.runners.world_ranks import WorldRanks
from knet_hvd.training.config import may_differ
from knet_hvd.training.pipeline.config import PipelineConfig


class PipelineRules:
    """Implement ``CheckpointRules``."""

    kind = "pipeline"

    def __init__(self, config: PipelineConfig, world: World) -> None:
        """Take the job's configuration, the same on all ranks, and all ranks."""
        self.ranks = WorldRanks(world)
        self._replicas = config.replicas
        # The number of stages may follow from that of the ranks.
        stages = num_stages(world.size, config.replicas, config.stages)
        self.configuration = to_flat_dict(replace(config, stages=stages))

    def shards_to_read(self, manifest: Manifest) -> list[int]:
        """Return this rank's shard, and that of its stage's first replica."""
        if len(manifest.shards) != self.ranks.size:
            return []  # refused by the configuration that it holds
        place = saved_plan(manifest).order.index(self.ranks.rank)
        return sorted({place - place % self._replicas, place})

    def check(self, manifest: Manifest) -> None:
        """Raise unless the checkpoint's job is this one.

        Raises:
            CheckpointError: Names all settings that differ and may not.
        """
        saved = manifest.configuration
        check_same_configuration(saved, self.configuration, may_differ(PipelineConfig))


def plan_details(plan: Plan) -> dict[str, Scalar]:
    """Return what `saved_plan` needs in a manifest's details.

    Args:
        plan: The plan.
    """
    return {"cuts": json.dumps(plan.cuts), "order": json.dumps(plan.order)}


def saved_plan(manifest: Manifest) -> Plan:
    """Return the plan of a checkpoint's job.

    Raises:
        CheckpointError: If the manifest says no plan for the ranks that wrote shards.
    """
    cuts, order = (_numbers(manifest.detail(key, str)) for key in ("cuts", "order"))
    if sorted(order) != list(range(len(manifest.shards))):
        raise CheckpointError(
            f"the checkpoint says that its stages are on the ranks {list(order)}, and has "
            f"{len(manifest.shards)} shards"
        )
    return Plan(cuts, order, 0.0)


def _numbers(text: str) -> tuple[int, ...]:
    """Return a list of integers that is written as JSON."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise CheckpointError(f"the checkpoint's stages: expected integers, got {text[:80]!r}")
    return tuple(values)


def check_cuts(saved: Plan, present: Plan) -> None:
    """Raise unless both cut into the same stages.

    Args:
        saved: Of the checkpoint's job.
        present: Of this one.

    Raises:
        CheckpointError: Names both.
    """
    there, here = (" ".join(map(str, plan.cuts)) for plan in (saved, present))
    check_same_configuration({"cuts": there}, {"cuts": here}, ())

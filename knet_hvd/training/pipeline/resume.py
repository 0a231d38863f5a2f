"""Whether a pipeline job may go on from a checkpoint."""

import json
from dataclasses import replace

from knet_hvd.checkpoint import Manifest, check_same_configuration
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar, to_flat_dict
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.training.config import may_differ
from knet_hvd.training.pipeline.config import PipelineConfig


def resolved(config: PipelineConfig, num_stages: int) -> dict[str, Scalar]:
    """Return a configuration, flat, with the stages that there are.

    Args:
        config: Its stages may follow from the number of ranks.
        num_stages: The stages.
    """
    return to_flat_dict(replace(config, stages=num_stages))


def check_configuration(manifest: Manifest, present: dict[str, Scalar]) -> None:
    """Raise unless the checkpoint's job is this one.

    Args:
        manifest: Of the checkpoint.
        present: What `resolved` returned.

    Raises:
        CheckpointError: Names all settings that differ and may not.
    """
    check_same_configuration(manifest.configuration, present, may_differ(PipelineConfig))


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

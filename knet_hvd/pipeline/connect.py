"""Connect the stage of a rank to its neighbors, with what runs it."""

from dataclasses import dataclass

from knet_hvd.comm import Mesh, World
from knet_hvd.comm.throttle import Throttle
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.pipeline.links import StageLinks, open_links
from knet_hvd.pipeline.placement.cuts import output_signatures
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.runners.decoupled import DecoupledRunner
from knet_hvd.pipeline.runners.locked import LockedRunner
from knet_hvd.pipeline.runners.stage_io import StageIO
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage import Stage


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RankParts:
    """Hold what one rank learns with, before it is connected to its neighbors.

    Attributes:
        stage: The blocks of this rank.
        source: Where their gradients come from.
        mesh: Which rank is which stage.
        cuts: Blocks before each cut.
        replicas: Of the stage.
    """

    stage: Stage
    source: GradientSource
    mesh: Mesh
    cuts: tuple[int, ...]
    replicas: Replicas


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class BuiltStage:
    """Hold what one rank trains with.

    Attributes:
        runner: Makes the steps; knows the stage and its gradient source.
        links: To the neighbors.
        next_rank: The rank of the next stage, if any.
    """

    runner: Runner
    links: StageLinks
    next_rank: int | None


def connect(
    spec: PipelineSpec,
    parts: RankParts,
    world: World,
    *,
    rows: int,
    links: LinkSettings | None = None,
    log_every: int = 1,
    throttle: Throttle | None = None,
) -> BuiltStage:
    """Connect the stage of this rank to its neighbors; all ranks have to call.

    Args:
        spec: What the parts were built from.
        parts: Of this rank.
        world: All ranks.
        rows: The most samples of a microbatch.
        links: How tensors cross.
        log_every: Steps between those whose metrics are wanted.
        throttle: Makes this rank slower, for tests.

    Raises:
        RankMismatchError: If two ranks differ in what crosses between them.
    """
    outputs = output_signatures(spec.builder, spec.with_rows(rows).example)
    opened = open_links(
        world,
        parts.mesh,
        [outputs[cut - 1] for cut in parts.cuts],
        links or LinkSettings(),
        gradients_return=spec.decoupler.gradients_return,
        device=parts.stage.device,
    )
    io = StageIO(opened, log_every, parts.stage.device)
    # Replicas have to make the same updates in the same order.
    deterministic = spec.deterministic or parts.replicas.number > 1
    throttle = throttle or Throttle()
    runner = _runner(spec, parts.stage, parts.source, io, throttle, deterministic)
    next_rank = parts.mesh.next(world.rank)
    return BuiltStage(runner=runner, links=opened, next_rank=next_rank)


def _runner(
    spec: PipelineSpec,
    stage: Stage,
    source: GradientSource,
    io: StageIO,
    throttle: Throttle,
    deterministic: bool,
) -> Runner:
    """Return what runs a stage: locked, or decoupled."""
    actions = spec.decoupler.locked_schedule(stage.index, stage.num_stages, spec.num_microbatches)
    if actions is not None:
        return LockedRunner(stage, source, io, actions, throttle)
    return DecoupledRunner(
        stage,
        source,
        io,
        throttle,
        max_delay=spec.decoupler.delay_limit(stage.num_later_stages),
        num_microbatches=spec.num_microbatches,
        deterministic=deterministic,
    )

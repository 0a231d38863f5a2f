"""What a rank trains with: its part of the plan, built and connected."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from knet_hvd.comm import World, check_agreement
from knet_hvd.comm.throttle import throttle_of
from knet_hvd.data import load_dataset
from knet_hvd.metrics.process_memory import MemoryMeter, keep_freed_blocks, release_freed_blocks
from knet_hvd.pipeline.build import build_stage, build_stage_decoupler, make_runner
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.decouplers.registry import decoupler_class
from knet_hvd.pipeline.links import StageLinks, open_links
from knet_hvd.pipeline.placement.cuts import block_names, output_shapes
from knet_hvd.pipeline.placement.planning import mesh_of, plan_facts, plan_stages
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.stage import Stage
from knet_hvd.training.inputs import input_shape
from knet_hvd.training.pipeline.batches import BatchSource
from knet_hvd.training.pipeline.config import PipelineConfig


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StageJob:
    """Hold what one rank trains with.

    Attributes:
        plan: Which blocks are on which ranks.
        block_names: Of the whole network.
        stage: The blocks of this rank.
        source: Its batches; images on the first stage only.
        links: To its neighbours.
        replicas: Of the stage.
        runner: Makes the steps.
        next_rank: The rank of the next stage, if any.
        memory: Has measured since before anything was built.
    """

    plan: Plan
    block_names: list[str]
    stage: Stage
    source: BatchSource
    links: StageLinks
    replicas: Replicas
    runner: Runner
    next_rank: int | None
    memory: MemoryMeter

    @property
    def decoupler(self) -> Decoupler:
        """Return where the stage's gradients come from."""
        return self.runner.decoupler


def build_stage_job(
    config: PipelineConfig,
    world: World,
    replicas: Replicas,
    choose_plan: Callable[[Callable[[], Plan]], Plan],
) -> StageJob:
    """Load data, place the blocks, build this rank's, and connect it to its neighbours.

    Args:
        config: The same on every rank.
        world: All ranks; every rank has to call.
        replicas: Of this rank's stage.
        choose_plan: Returns the plan of a checkpoint, or what the function that it gets
            returns.

    Raises:
        RankMismatchError: If ranks differ in the placement or in what crosses.
        DataError: If a data file is missing or malformed.
        ValueError: If a setting is unknown or does not fit.
    """
    dataset = load_dataset(config.data, config.data_dir)
    in_shape, num_classes = input_shape(dataset, config), dataset.num_classes
    if config.release_above_mb is not None:
        release_freed_blocks(int(1e6 * config.release_above_mb))
    elif config.keep_freed_memory:
        keep_freed_blocks()
    memory = MemoryMeter()
    network: dict[str, Any] = {"in_shape": in_shape, "num_classes": num_classes}
    network |= {"width": config.width, "layerwise": config.layerwise}
    shapes = output_shapes(config.model, **network)
    plan = choose_plan(partial(plan_stages, config, world, shapes, in_shape, num_classes))
    check_agreement(world, plan_facts(plan), "the placement")
    mesh, cuts = mesh_of(plan), plan.cuts
    index = mesh.stage_of(world.rank)
    source = BatchSource(dataset, config, images=index == 0, replica=replicas.index)
    del dataset  # only the first stage keeps images
    stage = build_stage(config, cuts, index, in_shape=in_shape, num_classes=num_classes)
    crossing = [shapes[cut - 1] for cut in cuts]
    gradients_return = decoupler_class(config.decoupler).gradients_return
    links = open_links(world, mesh, crossing, config, gradients_return)
    out_shape = () if stage.is_last else crossing[index]
    decoupler = build_stage_decoupler(config, stage, out_shape, num_classes)
    replicas.attach(stage, decoupler)
    throttle = throttle_of(world, config.slow_rank)
    return StageJob(
        plan=plan,
        block_names=block_names(config.model, **network),
        stage=stage,
        source=source,
        links=links,
        replicas=replicas,
        runner=make_runner(config, stage, decoupler, links, throttle),
        next_rank=mesh.next(world.rank),
        memory=memory,
    )

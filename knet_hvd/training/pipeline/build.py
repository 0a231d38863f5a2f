"""What a rank trains with: its part of the plan, built and connected."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from knet_hvd.comm import World, check_agreement
from knet_hvd.comm.throttle import Throttle, throttle_of
from knet_hvd.data import Dataset, load_dataset
from knet_hvd.devices import take_device
from knet_hvd.metrics.process_memory import MemoryMeter, keep_freed_blocks, release_freed_blocks
from knet_hvd.models import ModelFactory
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder
from knet_hvd.pipeline.build import build_rank
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.optimizers import Optimizer, named_optimizer
from knet_hvd.pipeline.placement.cuts import num_stages
from knet_hvd.pipeline.placement.planning import (
    measure_costs,
    mesh_of,
    plan_by_costs,
    plan_by_cuts,
    plan_facts,
)
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage import Stage
from knet_hvd.training.batches import BatchSource
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.resume import check_cuts

_VALUES_PER_PARAMETER = {"sgd": 0, "momentum": 1, "adam": 2}
_MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StageJob:
    """Hold what one rank trains with.

    Attributes:
        plan: Which blocks are on which ranks.
        block_names: Of the whole network.
        stage: The blocks of this rank.
        source: Its batches; inputs on the first stage only.
        links: To its neighbors.
        replicas: Of the stage.
        runner: Makes the steps.
        next_rank: The rank of the next stage, if any.
        memory: Has measured since before anything was built.
        devices: A line that says which device each rank took.
        is_locked: Whether stages wait for each other in every step.
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
    devices: str
    is_locked: bool

    @property
    def gradient_source(self) -> GradientSource:
        """Return where the stage's gradients come from."""
        return self.runner.gradient_source


def build_stage_job(
    config: PipelineConfig, world: World, replicas: Replicas, saved: Plan | None
) -> StageJob:
    """Load data, place the blocks, build this rank's, and connect it to its neighbors.

    Args:
        config: The same on every rank.
        world: All ranks; every rank has to call.
        replicas: Of this rank's stage.
        saved: The plan of the checkpoint from which the run continues, if any.

    Raises:
        CheckpointError: On every rank, if the checkpoint has other cuts.
        RankMismatchError: If ranks differ in their data, the placement or what crosses.
        DataError: If a data file is missing or malformed.
        KnetError: If a function of the user's cannot be imported, or fails; or if a rank has no
            such device of its own.
        ValueError: If a setting is unknown or does not fit.
    """
    dataset = load_dataset(config.data, config.data_dir, config.image_settings)
    check_agreement(world, dataset.facts(), "the data set")
    if config.release_above_mb is not None:
        release_freed_blocks(int(_MEGABYTE * config.release_above_mb))
    elif config.keep_freed_memory:
        keep_freed_blocks()
    taken = take_device(config.device, world.gather_text)
    memory = MemoryMeter(taken.device)
    throttle = throttle_of(world, config.slow_rank)
    spec = pipeline_spec(config, dataset)
    plan = _plan(config, spec, world, throttle, saved, taken.device)
    check_agreement(world, plan_facts(plan), "the placement")
    is_first = mesh_of(plan).stage_of(world.rank) == 0
    source = BatchSource(
        dataset, config, share=replicas.index, num_shares=config.replicas, inputs=is_first
    )
    del dataset  # only the first stage keeps inputs
    built = build_rank(
        spec,
        plan,
        world,
        links=config.links,
        replicas=replicas,
        log_every=config.log_every,
        throttle=throttle,
        device=taken.device,
    )
    return StageJob(
        plan=plan,
        block_names=spec.builder.names,
        stage=built.runner.stage,
        source=source,
        links=built.links,
        replicas=replicas,
        runner=built.runner,
        next_rank=built.next_rank,
        memory=memory,
        devices=taken.line,
        is_locked=config.decoupler.locked,
    )


def pipeline_spec(config: PipelineConfig, dataset: Dataset) -> PipelineSpec:
    """Return what the stages of a job are built from.

    Args:
        config: Names the network and says how it learns.
        dataset: Gives the sizes of inputs and targets, and the loss.
    """
    factory = partial(
        ModelFactory(config.model),
        in_shape=dataset.in_shape,
        num_classes=dataset.num_classes,
        width=config.width,
        layerwise=config.layerwise,
    )

    def make_optimizer(parameters: list[nn.Parameter]) -> Optimizer:
        return named_optimizer(
            config.optimizer, parameters, config.learning_rate, config.weight_decay
        )

    return PipelineSpec(
        builder=BlockBuilder(factory),
        example=dataset.example(config.microbatch_size),
        loss=dataset.loss,
        make_optimizer=make_optimizer,
        decoupler=config.decoupler,
        num_classes=dataset.num_classes,
        num_microbatches=config.microbatches,
        precision=config.precision,
        seed=config.seed,
        channels_last=config.weights_layout == "channels_last",
        deterministic=config.deterministic,
    )


def _plan(
    config: PipelineConfig,
    spec: PipelineSpec,
    world: World,
    throttle: Throttle,
    saved: Plan | None,
    device: torch.device,
) -> Plan:
    """Return where stages are cut and which ranks hold them; every rank has to call.

    Measuring again might find other cuts: those of the checkpoint are kept.
    """
    measured = config.placement == "measured" and not config.cuts
    if saved is not None and measured:
        return saved
    stages = num_stages(world.size, config.replicas, config.stages)
    if measured:
        limits = (int(_MEGABYTE * each) if each > 0 else None for each in config.memory_limits_mb)
        costs = measure_costs(
            spec,
            world,
            config.links,
            memory_limits_bytes=list(limits),
            values_per_parameter=_VALUES_PER_PARAMETER[config.optimizer],
            throttle=throttle,
            device=device,
        )
        return plan_by_costs(costs, config.replicas)
    plan = plan_by_cuts(world.size, len(spec.builder), stages, config.cuts)
    if saved is not None:
        check_cuts(saved, plan)
    return plan

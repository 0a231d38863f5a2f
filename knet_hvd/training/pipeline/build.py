"""What a rank trains with: its part of the plan, built and connected."""

from dataclasses import dataclass
from functools import partial

from torch import nn

from knet_hvd.comm import World, check_agreement
from knet_hvd.comm.throttle import throttle_of
from knet_hvd.data import Dataset, load_dataset
from knet_hvd.devices import take_device
from knet_hvd.metrics.process_memory import MemoryMeter, keep_freed_blocks, release_freed_blocks
from knet_hvd.models import ModelFactory
from knet_hvd.pipeline.api.member import Member
from knet_hvd.pipeline.api.placing import Placing
from knet_hvd.pipeline.blocks.user_model import UserModel, user_model
from knet_hvd.pipeline.connect import BuiltStage
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.optimizers import Optimizer, named_optimizer
from knet_hvd.pipeline.placement.cuts import num_stages, output_signatures
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.replicas.base import Replicas
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
        member: The rank as one of a pipeline.
        built: What makes its steps, connected to its neighbors.
        stage: Its blocks.
        replicas: Of the stage.
        source: Its batches; inputs on the first stage only.
        memory: Has measured since before anything was built.
        devices: A line that says which device each rank took.
    """

    member: Member
    built: BuiltStage
    stage: Stage
    replicas: Replicas
    source: BatchSource
    memory: MemoryMeter
    devices: str

    @property
    def gradient_source(self) -> GradientSource:
        """Return where the stage's gradients come from."""
        return self.built.runner.gradient_source


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
    model = job_model(config, dataset)
    spec = pipeline_spec(config, dataset, model)
    output_signatures(spec.builder, spec.example)  # imports what the meter is not to count
    memory = MemoryMeter(taken.device)
    num_samples = config.batch_size * config.replicas
    member = Member(
        world,
        model,
        spec,
        replicas=replicas,
        device=taken.device,
        placing=_placing(config, world, saved),
        batch_size=num_samples,
        links=config.links,
        log_every=config.log_every,
    )
    if saved is not None:
        check_cuts(saved, member.plan)
    source = BatchSource(
        dataset,
        config,
        share=replicas.index,
        num_shares=config.replicas,
        inputs=member.stage.is_first,
    )
    del dataset  # only the first stage keeps inputs
    return StageJob(
        member=member,
        built=member.connected(num_samples),
        stage=member.stage,
        replicas=replicas,
        source=source,
        memory=memory,
        devices=taken.line,
    )


def job_model(config: PipelineConfig, dataset: Dataset) -> UserModel:
    """Return the network of a job, as blocks.

    Args:
        config: Names it.
        dataset: Gives the sizes of inputs and targets.
    """
    return user_model(
        partial(
            ModelFactory(config.model),
            in_shape=dataset.in_shape,
            num_classes=dataset.num_classes,
            width=config.width,
            layerwise=config.layerwise,
        )
    )


def pipeline_spec(config: PipelineConfig, dataset: Dataset, model: UserModel) -> PipelineSpec:
    """Return what the stages of a job are built from.

    Args:
        config: Says how the network learns.
        dataset: Gives examples and the loss.
        model: The network.
    """

    def make_optimizer(parameters: list[nn.Parameter]) -> Optimizer:
        return named_optimizer(
            config.optimizer, parameters, config.learning_rate, config.weight_decay
        )

    return PipelineSpec(
        builder=model.source,
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


def _placing(config: PipelineConfig, world: World, saved: Plan | None) -> Placing:
    """Return where stages are cut, and what is known of ranks."""
    num_stages(world.size, config.replicas, config.stages)  # raises unless the ranks hold them
    return Placing(
        cuts=config.cuts or config.placement,
        memory_limits_mb=config.memory_limits_mb,
        values_per_parameter=_VALUES_PER_PARAMETER[config.optimizer],
        throttle=throttle_of(world, config.slow_rank),
        saved=saved,
    )

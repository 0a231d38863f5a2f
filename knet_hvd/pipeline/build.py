"""Build what a rank trains: its stage, and where its gradients come from."""

import torch

from knet_hvd.comm import World
from knet_hvd.compression import TernaryConfig
from knet_hvd.devices import CPU
from knet_hvd.devices.random_state import own_random_states
from knet_hvd.pipeline.activation import Signature
from knet_hvd.pipeline.blocks.batch_norm import scale_momentum
from knet_hvd.pipeline.connect import RankParts
from knet_hvd.pipeline.decouplers import Use
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.loss_head import LossHead
from knet_hvd.pipeline.optimizers import has_averages
from knet_hvd.pipeline.placement.cuts import output_signatures, stage_blocks
from knet_hvd.pipeline.placement.planning import mesh_of
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.replicas.single import SingleReplica
from knet_hvd.pipeline.spec import PipelineSpec, source_of
from knet_hvd.pipeline.stage import Stage


def build_parts(
    spec: PipelineSpec,
    plan: Plan,
    world: World,
    replicas: Replicas | None = None,
    device: torch.device = CPU,
) -> RankParts:
    """Build the stage of this rank and its gradient source, and attach its replicas.

    Args:
        spec: What all stages are built from, the same on every rank.
        plan: Which blocks are on which ranks, the same on every rank.
        world: All ranks.
        replicas: Of this rank's stage; one if not given.
        device: Of this rank.

    Raises:
        ValueError: If the decoupler cannot do what the spec asks for.
    """
    replicas = replicas or SingleReplica()
    mesh = mesh_of(plan)
    stage = build_stage(spec, plan.cuts, mesh.stage_of(world.rank), device)
    spec.decoupler.check(
        Use(
            num_microbatches=spec.num_microbatches,
            num_replicas=replicas.number,
            optimizer_has_averages=has_averages(stage.optimizer),
        )
    )
    outputs = output_signatures(spec.builder, spec.example)
    crossing = [outputs[cut - 1] for cut in plan.cuts]
    source = build_gradient_source(spec, stage, [*crossing, outputs[-1]][stage.index])
    replicas.attach(stage, source)
    return RankParts(stage=stage, source=source, mesh=mesh, cuts=plan.cuts, replicas=replicas)


def build_stage(
    spec: PipelineSpec, cuts: tuple[int, ...], index: int, device: torch.device = CPU
) -> Stage:
    """Return a stage with the initial weights that a single process would have.

    Blocks of other stages never get memory.

    Args:
        spec: What all stages are built from.
        cuts: Blocks before each cut.
        index: Which stage.
        device: Where its blocks go, once the CPU's generator has given them their values.
    """
    if spec.seed is not None:
        torch.manual_seed(spec.seed)
    blocks = spec.builder.build(stage_blocks(len(spec.builder), cuts, index))
    scale_momentum(blocks, spec.num_microbatches)
    if spec.channels_last:
        blocks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    blocks.to(device)
    parameters = [each for each in blocks.parameters() if each.requires_grad]
    optimizer = spec.make_optimizer(parameters) if parameters else None
    return Stage(index, len(cuts) + 1, blocks, optimizer, spec.precision, device)


def build_gradient_source(spec: PipelineSpec, stage: Stage, output: Signature) -> GradientSource:
    """Return where a stage's gradients come from: the decoupler's, or the loss.

    Args:
        spec: What all stages are built from.
        stage: The stage.
        output: What it returns.
    """
    if stage.is_last:
        return LossHead(spec.loss)
    if spec.seed is not None:
        torch.manual_seed(spec.seed * 1009 + stage.index)
        source = source_of(spec, output)
    else:
        with own_random_states(stage.device):  # the caller's random numbers are not ours
            torch.manual_seed(stage.index)
            source = source_of(spec, output)
    source.modules.to(stage.device)
    return source


def open_replicas(
    world: World, number: int, compression: str, ternary: TernaryConfig, num_microbatches: int = 1
) -> Replicas:
    """Form the groups of replicas; initializes Horovod if there are any.

    Args:
        world: All ranks; every rank has to call.
        number: Replicas of each stage, a divisor of the number of ranks.
        compression: How gradients cross between replicas: none, fp16 or ternary.
        ternary: Settings of the codes.
        num_microbatches: Backward passes that an update of the blocks follows.

    Raises:
        KnetError: If Horovod does not see the same ranks as MPI.
    """
    if number == 1:
        return SingleReplica()
    # Not at the top: pipelines without replicas run without Horovod.
    from knet_hvd.pipeline.replicas.horovod import HorovodReplicas

    return HorovodReplicas(world, number, compression, ternary, num_microbatches)

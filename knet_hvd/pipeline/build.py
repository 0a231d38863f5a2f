"""Build what a stage runs with from the configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from knet_hvd.comm.throttle import Throttle
from knet_hvd.models import BlockBuilder
from knet_hvd.pipeline.decouplers import Backprop, Decoupler, Delayed, Objective, Synthetic
from knet_hvd.pipeline.decouplers.registry import decoupler_class, make_decoupler
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.optimizers import make_optimizer
from knet_hvd.pipeline.placement.cuts import stage_blocks
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.runners.decoupled import DecoupledRunner
from knet_hvd.pipeline.runners.locked import LockedRunner
from knet_hvd.pipeline.runners.schedules import one_forward_one_backward, sequential
from knet_hvd.pipeline.stage import Stage

if TYPE_CHECKING:
    from knet_hvd.training.pipeline.config import PipelineConfig

_SYNTHESIZER_DELAY = 4
_SLACK = 1
"""Steps that a late gradient may take beyond one for each later stage. Stages that take
the same time need none of it, if each goes forward and backward in turn: that is the
1F1B order of PipeDream (SOSP 2019, section 3.2). One lets a stage be slow for once."""


def build_stage(
    config: PipelineConfig,
    cuts: tuple[int, ...],
    index: int,
    *,
    in_shape: tuple[int, int, int],
    num_classes: int,
) -> Stage:
    """Return a stage with the initial weights that a single process would have.

    Blocks of other stages never get memory.

    Args:
        config: The job's configuration.
        cuts: Blocks before each cut.
        index: Which stage.
        in_shape: Channels, height and width of an image.
        num_classes: The number of logits.
    """
    builder = BlockBuilder(
        config.model,
        in_shape=in_shape,
        num_classes=num_classes,
        width=config.width,
        layerwise=config.layerwise,
    )
    torch.manual_seed(config.seed)
    blocks = builder.build(stage_blocks(len(builder.skeleton), cuts, index))
    if config.microbatches > 1:
        _slow_down_statistics(blocks, config.microbatches)
    if config.weights_layout == "channels_last":
        blocks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(blocks, config.optimizer, config.learning_rate, config.weight_decay)
    return Stage(index, len(cuts) + 1, blocks, optimizer, config.precision)


def _slow_down_statistics(blocks: nn.Sequential, microbatches: int) -> None:
    """Have running statistics move as far in a step as without microbatches."""
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (1 / microbatches)


def build_stage_decoupler(
    config: PipelineConfig, stage: Stage, out_shape: tuple[int, ...], num_classes: int
) -> Decoupler:
    """Return the decoupler of a stage; the last one has the loss itself.

    Args:
        config: The job's configuration.
        stage: The stage.
        out_shape: Its output, without the batch.
        num_classes: The number of logits.
    """
    torch.manual_seed(config.seed * 1009 + stage.index)
    if stage.is_last:
        return Objective()
    return make_decoupler(config, out_shape, num_classes)


def max_delay(config: PipelineConfig, stage: Stage) -> int:
    """Return the most steps that a gradient may take to come back to a stage.

    Args:
        config: The job's configuration.
        stage: The stage.
    """
    if config.max_delay is not None:
        return config.max_delay
    kind = decoupler_class(config.decoupler)
    from_last = stage.num_stages - 1 - stage.index + _SLACK
    synthesizes = issubclass(kind, Synthetic)
    if kind is Delayed or (synthesizes and config.synthesizer.correct):
        return from_last
    if synthesizes and config.synthesizer.targets == "true":
        return max(from_last, _SYNTHESIZER_DELAY)
    return _SYNTHESIZER_DELAY


def make_runner(
    config: PipelineConfig,
    stage: Stage,
    decoupler: Decoupler,
    links: StageLinks,
    throttle: Throttle,
) -> Runner:
    """Return what runs a stage: locked, or decoupled.

    Args:
        config: The job's configuration.
        stage: The stage.
        decoupler: Where its gradients come from.
        links: To its neighbours.
        throttle: Makes this rank slower, for tests.
    """
    if decoupler_class(config.decoupler) is Backprop:
        actions = (
            sequential(config.microbatches)
            if config.schedule == "sequential"
            else one_forward_one_backward(stage.index, stage.num_stages, config.microbatches)
        )
        return LockedRunner(stage, decoupler, links, config.log_every, throttle, actions)
    return DecoupledRunner(
        stage,
        decoupler,
        links,
        config.log_every,
        throttle,
        max_delay=max_delay(config, stage),
        num_microbatches=config.microbatches,
        # Replicas have to make the same updates in the same order.
        deterministic=config.deterministic or config.replicas > 1,
    )

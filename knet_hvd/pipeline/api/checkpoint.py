"""Save a pipeline between two steps, and continue bit for bit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from knet_hvd.checkpoint import (
    AsyncCheckpointWriter,
    CheckpointConfig,
    Manifest,
    ShardRecord,
    StateTree,
    StopSignals,
    check_same_configuration,
    load_latest,
    open_store,
    snapshot,
)
from knet_hvd.comm import World
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar
from knet_hvd.pipeline.connect import BuiltStage
from knet_hvd.pipeline.runners.settling import settle
from knet_hvd.pipeline.runners.world_ranks import WorldRanks

KIND = "own pipeline"
_VERSIONS = {"torch": torch.__version__}


def save_stage(
    world: World,
    built: BuiltStage,
    folder: Path,
    *,
    step: int,
    configuration: Mapping[str, Scalar],
    keep: int,
) -> None:
    """Save the state of all ranks; every rank has to call after the same step.

    The checkpoint is there as a whole or not at all.

    Args:
        world: All ranks.
        built: What this rank trains with.
        folder: Of the checkpoints, seen by all ranks.
        step: Steps made so far.
        configuration: What a pipeline that continues has to have as well.
        keep: How many of the latest checkpoints stay.

    Raises:
        CheckpointError: On every rank, if it could not be written.
    """
    settle(world, built.links, built.runner, built.next_rank)
    tree = _capture(built)

    def describe(saved_step: int, shards: tuple[ShardRecord, ...]) -> Manifest:
        return Manifest(
            kind=KIND,
            step=saved_step,
            shards=shards,
            configuration=configuration,
            versions=_VERSIONS,
        )

    ranks = WorldRanks(world, built.runner.poll_gradients)
    config = CheckpointConfig(checkpoint_dir=folder, keep_checkpoints=keep)
    store, lock = open_store(config, ranks)
    writer = AsyncCheckpointWriter(
        store, ranks, StopSignals(()), every=1, capture=lambda _: tree, describe=describe
    )
    try:
        writer.before_step()
        writer.after_step(step, is_last=True)
        writer.finish(step)
    finally:
        writer.close()
        if lock is not None:
            lock.release()


def load_stage(
    world: World, folder: Path, configuration: Mapping[str, Scalar]
) -> tuple[int, StateTree] | None:
    """Return the latest good checkpoint; every rank has to call.

    Args:
        world: All ranks.
        folder: Of the checkpoints.
        configuration: Of this pipeline.

    Returns:
        The steps made by then, and this rank's state; None if there is no checkpoint.

    Raises:
        CheckpointError: On every rank, if none is good, or the latest is of another
            pipeline.
    """
    ranks = WorldRanks(world)
    store, lock = open_store(CheckpointConfig(checkpoint_dir=folder), ranks)
    try:
        saved = load_latest(store, KIND, lambda manifest: _own_shard(manifest, world), ranks)
    finally:
        if lock is not None:
            lock.release()
    if saved is None:
        return None
    check_same_configuration(saved.manifest.configuration, configuration, ())
    return saved.manifest.step, saved.shards[world.rank]


def _own_shard(manifest: Manifest, world: World) -> list[int]:
    return [world.rank] if world.rank < len(manifest.shards) else []


def _capture(built: BuiltStage) -> StateTree:
    """Return the state of this rank; nothing of it changes with the next step."""
    stage, source = built.runner.stage, built.runner.gradient_source
    tree: dict[str, Any] = {
        "model": dict(stage.blocks.state_dict()),
        "optimizer": None if stage.optimizer is None else stage.optimizer.state_dict(),
        "decoupler": dict(source.modules.state_dict()),
        "decoupler_optimizer": None if source.optimizer is None else source.optimizer.state_dict(),
        "metrics": dict(source.metrics),
        "under_way": built.runner.state(),
        "random_state": torch.get_rng_state(),
    }
    return snapshot(tree)


def restore_stage(built: BuiltStage, tree: StateTree) -> None:
    """Bring this rank to a state that was captured, bit for bit.

    Raises:
        CheckpointError: If names or shapes are not those of this stage.
    """
    stage, source = built.runner.stage, built.runner.gradient_source
    try:
        stage.blocks.load_state_dict(tree["model"])
        source.modules.load_state_dict(tree["decoupler"])
        for optimizer, key in ((stage.optimizer, ""), (source.optimizer, "decoupler_")):
            if optimizer is not None:
                optimizer.load_state_dict(tree[f"{key}optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        text = " ".join(str(error).split())
        raise CheckpointError(f"the checkpoint does not fit stage {stage.index}: {text}") from error
    built.runner.load_state(tree["under_way"])
    source.metrics = dict(tree["metrics"])
    torch.set_rng_state(tree["random_state"])

"""Save a pipeline between two steps, and continue bit for bit."""

import json
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
from knet_hvd.devices.random_state import load_random_states, save_random_states
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar, to_flat_dict
from knet_hvd.pipeline.api.member import Member
from knet_hvd.pipeline.connect import BuiltStage
from knet_hvd.pipeline.decouplers import Use
from knet_hvd.pipeline.replicas.base import Replicas
from knet_hvd.pipeline.runners.settling import settle
from knet_hvd.pipeline.runners.world_ranks import WorldRanks

KIND = "own pipeline"
_VERSIONS = {"torch": torch.__version__}


def save_member(member: Member, folder: Path, step: int, keep: int) -> None:
    """Save the state of all ranks; every rank has to call after the same step.

    The checkpoint is there as a whole or not at all.

    Args:
        member: This rank.
        folder: Of the checkpoints, seen by all ranks.
        step: Steps made so far.
        keep: How many of the latest checkpoints stay.

    Raises:
        CheckpointError: On every rank, if it could not be written.
        ValueError: If there is nothing to save, or it cannot be saved.
    """
    built, world, replicas = member.built, member.world, member.replicas
    if built is None:
        raise ValueError("save: expected at least one step before, got none")
    num_microbatches = member.spec.num_microbatches
    member.spec.decoupler.check(
        Use(
            num_microbatches=num_microbatches,
            num_replicas=replicas.number,
            saves_checkpoints=True,
        )
    )
    settle(world, built.links, built.runner, built.next_rank)
    tree = _capture(built, replicas)
    configuration = _configuration(member, member.batch_size)

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


def load_member(member: Member, folder: Path, num_samples: int) -> int:
    """Continue from the latest good checkpoint; every rank has to call.

    Args:
        member: This rank.
        folder: Of the checkpoints.
        num_samples: The most samples of a batch.

    Returns:
        The steps made by then; 0 if there is no checkpoint.

    Raises:
        CheckpointError: On every rank, if none is good, or the latest is of another
            pipeline.
    """
    world = member.world
    ranks = WorldRanks(world)
    store, lock = open_store(CheckpointConfig(checkpoint_dir=folder), ranks)
    try:
        saved = load_latest(store, KIND, lambda manifest: _own_shard(manifest, world), ranks)
    finally:
        if lock is not None:
            lock.release()
    if saved is None:
        return 0
    configuration = _configuration(member, num_samples)
    check_same_configuration(saved.manifest.configuration, configuration, ())
    _restore(member.connected(num_samples), member.replicas, saved.shards[world.rank])
    return saved.manifest.step


def _configuration(member: Member, num_samples: int) -> dict[str, Scalar]:
    """Return what a pipeline that continues has to have as well."""
    spec = member.spec
    decoupler = to_flat_dict(spec.decoupler)
    return {
        "cuts": json.dumps(member.plan.cuts),
        "order": json.dumps(member.plan.order),
        "batch_size": num_samples,
        "microbatches": spec.num_microbatches,
        "replicas": member.replicas.number,
        "decoupler": spec.decoupler.name,
        **{f"decoupler.{name}": value for name, value in decoupler.items()},
    }


def _own_shard(manifest: Manifest, world: World) -> list[int]:
    return [world.rank] if world.rank < len(manifest.shards) else []


def _capture(built: BuiltStage, replicas: Replicas) -> StateTree:
    """Return the state of this rank; nothing of it changes with the next step."""
    stage, source = built.runner.stage, built.runner.gradient_source
    tree: dict[str, Any] = {
        "model": dict(stage.blocks.state_dict()),
        "optimizer": None if stage.optimizer is None else stage.optimizer.state_dict(),
        "decoupler": dict(source.modules.state_dict()),
        "decoupler_optimizer": None if source.optimizer is None else source.optimizer.state_dict(),
        "metrics": dict(source.metrics),
        "under_way": built.runner.state(),
        "compression": [
            replicas.compression_state(each) for each in (stage.optimizer, source.optimizer)
        ],
        **save_random_states(stage.device),
    }
    return snapshot(tree)


def _restore(built: BuiltStage, replicas: Replicas, tree: StateTree) -> None:
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
    optimizers = (stage.optimizer, source.optimizer)
    for averaging, state in zip(optimizers, tree["compression"], strict=True):
        replicas.load_compression_state(averaging, state)
    built.runner.load_state(tree["under_way"])
    source.metrics = dict(tree["metrics"])
    load_random_states(stage.device, tree)

"""The latest checkpoint of a folder, read by all ranks as one.

Whatever goes wrong on one rank is raised on every rank.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from knet_hvd.checkpoint.manifest import Manifest
from knet_hvd.checkpoint.ranks import Ranks, raise_on_all
from knet_hvd.checkpoint.shards import DamagedCheckpointError
from knet_hvd.checkpoint.state_tree import StateTree
from knet_hvd.checkpoint.store import CheckpointStore
from knet_hvd.errors import CheckpointError

_logger = logging.getLogger("knet_hvd")


@dataclass(frozen=True, slots=True)
class SavedJob:
    """A checkpoint that all ranks found to be good.

    Attributes:
        manifest: The same on all ranks.
        shards: Those that this rank asked for, by number.
    """

    manifest: Manifest
    shards: dict[int, StateTree]


def load_latest(
    store: CheckpointStore, kind: str, shards_to_read: Callable[[Manifest], list[int]], ranks: Ranks
) -> SavedJob | None:
    """Read the latest checkpoint that is good on every rank.

    Those that are not are named in the log and renamed.

    Args:
        store: Of ``open_store``.
        kind: ``"data_parallel"`` or ``"pipeline"``.
        shards_to_read: Which shards of a checkpoint this rank needs.
        ranks: All ranks of the job.

    Returns:
        None if there is no checkpoint.

    Raises:
        CheckpointError: On every rank, if there are checkpoints and none is good, or
            the latest good one is of another kind or format.
    """
    steps = _steps(store, ranks)
    damaged: list[int] = []
    complaints: list[str] = []
    saved = None
    for step in steps:
        saved, problems = _read(store, step, kind, shards_to_read, ranks)
        if saved is not None:
            break
        damaged.append(step)
        complaints += problems
        if ranks.rank == 0:
            _logger.warning("damaged checkpoint: %s", "; ".join(problems))
    if steps and saved is None:
        raise CheckpointError(
            f"no checkpoint in {store.folder} is good: {'; '.join(complaints)}. "
            "Choose another folder for a new run"
        )
    _set_aside(store, damaged, ranks)
    return saved


def _steps(store: CheckpointStore, ranks: Ranks) -> list[int]:
    """Return the steps of the checkpoints that rank 0 finds, the latest first."""
    error, own = "", ""
    if ranks.rank == 0:
        try:
            own = " ".join(map(str, store.steps()))
        except OSError as problem:
            error = unreadable(store, problem)
    return [int(step) for step in raise_on_all(ranks, error, own)[0].split()]


def _set_aside(store: CheckpointStore, damaged: list[int], ranks: Ranks) -> None:
    """Have rank 0 rename damaged checkpoints; raise on every rank if it cannot."""
    error = ""
    if ranks.rank == 0:
        try:
            for step in damaged:
                _logger.warning("renamed to %s", store.set_aside(step))
        except OSError as problem:
            error = (
                f"damaged checkpoints in {store.folder} cannot be renamed "
                f"({problem.strerror}): remove them"
            )
    if damaged:
        raise_on_all(ranks, error)


def _read(
    store: CheckpointStore,
    step: int,
    kind: str,
    shards_to_read: Callable[[Manifest], list[int]],
    ranks: Ranks,
) -> tuple[SavedJob | None, list[str]]:
    """Return a checkpoint, or None if it is damaged, and what ranks complain of."""
    saved, damage, error, digest = None, "", "", ""
    try:
        manifest = store.read_manifest(step)
        digest = manifest.digest
        if manifest.kind != kind:
            raise CheckpointError(
                f"{store.path(step)} is of a {manifest.kind} job, not of a {kind} job"
            )
        numbers = shards_to_read(manifest)
        shards = {number: store.read_shard(manifest, number) for number in numbers}
        saved = SavedJob(manifest, shards)
    except DamagedCheckpointError as problem:
        damage = str(problem)
    except CheckpointError as problem:
        error = str(problem)
    digests = {text for text in raise_on_all(ranks, error, digest) if text}
    problems = ranks.gather_texts(damage, "checkpoint damage", after_disk=True)
    found = list(dict.fromkeys(text for text in problems if text))
    if len(digests) > 1:
        found.append(f"{store.path(step)}: ranks read different manifests")
    return (None, found) if found else (saved, [])


def unreadable(store: CheckpointStore, problem: OSError) -> str:
    """Return the message for a folder that cannot be listed."""
    return f"checkpoint folder {store.folder} cannot be read ({problem.strerror})"

"""The checkpoint folder of a job: opened, and read, by all ranks as one.

Whatever goes wrong on one rank is raised on every rank.
"""

import logging
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from knet_hvd.checkpoint.config import CheckpointConfig
from knet_hvd.checkpoint.lock import FolderLock, read_holder
from knet_hvd.checkpoint.manifest import Manifest
from knet_hvd.checkpoint.ranks import Ranks
from knet_hvd.checkpoint.shards import DamagedCheckpointError
from knet_hvd.checkpoint.state_tree import Tree
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
    shards: dict[int, Tree]


def open_store(config: CheckpointConfig, ranks: Ranks) -> tuple[CheckpointStore, FolderLock | None]:
    """Open the folder for this job alone, before any time is spent on training.

    Args:
        config: Has a ``checkpoint_dir``.
        ranks: All ranks of the job.

    Returns:
        The store, and on rank 0 the lock.

    Raises:
        CheckpointError: On every rank, if the folder is in use, cannot be written, is
            not the same on all hosts, or holds what ``resume`` forbids.
    """
    folder = config.checkpoint_dir
    assert folder is not None
    store = CheckpointStore(folder, config.keep_checkpoints)
    lock: FolderLock | None = None
    error, holder = "", ""
    if ranks.rank == 0:
        holder = f"{socket.gethostname()}, process {os.getpid()}, job {uuid4().hex}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FolderLock(folder, holder)
            store.clean()
        except (OSError, CheckpointError) as problem:
            error = _describe(problem, config)
    try:
        holder = _raise_any(ranks, error, holder)[0]
        _raise_any(ranks, _check_shared(config, holder))
        _raise_any(ranks, _check_empty(store, config, ranks))
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return store, lock


def _check_empty(store: CheckpointStore, config: CheckpointConfig, ranks: Ranks) -> str:
    """Return what is wrong with beginning anew in this folder."""
    found = store.steps() if ranks.rank == 0 and config.resume == "never" else []
    if not found:
        return ""
    return (
        f"checkpoint folder {store.folder} holds checkpoints (the latest of step "
        f"{found[0]}) and resume is never: choose another folder, or resume auto"
    )


def _describe(problem: Exception, config: CheckpointConfig) -> str:
    if isinstance(problem, OSError):
        return (
            f"checkpoint folder {config.checkpoint_dir} cannot be written "
            f"({problem.strerror}): choose another"
        )
    return str(problem)


def _check_shared(config: CheckpointConfig, holder: str) -> str:
    """Return what is wrong with the folder as this rank sees it."""
    folder = config.checkpoint_dir
    assert folder is not None
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
        if read_holder(folder) == holder:
            return ""
    except OSError as problem:
        return _describe(problem, config)
    return (
        f"checkpoint folder {folder} on {socket.gethostname()} is another one than on "
        "rank 0's host: choose one on a file system that all hosts share"
    )


def _raise_any(ranks: Ranks, error: str, text: str = "") -> list[str]:
    """Raise on every rank if any has an error; return the texts of all ranks."""
    errors = ranks.gather_texts(error, "checkpoint errors", after_disk=True)
    found = [each for each in errors if each]
    if found:
        raise CheckpointError(found[0])
    return ranks.gather_texts(text, "checkpoint texts", after_disk=True)


def load_latest(
    store: CheckpointStore, kind: str, shards_to_read: Callable[[Manifest], list[int]], ranks: Ranks
) -> SavedJob | None:
    """Read the latest checkpoint that is good on every rank.

    Those that are not are named in the log and renamed.

    Args:
        store: Of ``open_store``.
        kind: Of the job.
        shards_to_read: Which shards of a checkpoint this rank needs.
        ranks: All ranks of the job.

    Returns:
        None if there is no checkpoint.

    Raises:
        CheckpointError: On every rank, if there are checkpoints and none is good, or
            the latest good one is of another kind or format.
    """
    own = " ".join(map(str, store.steps()))
    steps = ranks.gather_texts(own, "checkpoints", after_disk=True)[0].split()
    damaged: list[int] = []
    complaints: list[str] = []
    saved = None
    for step in map(int, steps):
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
            "Choose another folder to begin anew"
        )
    if ranks.rank == 0:
        for step in damaged:
            _logger.warning("renamed to %s", store.set_aside(step))
    return saved


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
    digests = {text for text in _raise_any(ranks, error, digest) if text}
    problems = ranks.gather_texts(damage, "checkpoint damage", after_disk=True)
    found = list(dict.fromkeys(text for text in problems if text))
    if len(digests) > 1:
        found.append(f"{store.path(step)}: ranks read different manifests")
    return (None, found) if found else (saved, [])

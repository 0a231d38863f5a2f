"""The checkpoint folder of a job, opened by all ranks as one.

Whatever goes wrong on one rank is raised on every rank.
"""

import os
import socket
import tempfile
from uuid import uuid4

from knet_hvd.checkpoint.config import CheckpointConfig
from knet_hvd.checkpoint.loading import unreadable
from knet_hvd.checkpoint.lock import FolderLock, read_holder
from knet_hvd.checkpoint.ranks import Ranks, raise_on_all
from knet_hvd.checkpoint.store import CheckpointStore
from knet_hvd.errors import CheckpointError


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
        holder = raise_on_all(ranks, error, holder)[0]
        raise_on_all(ranks, _check_shared(config, holder))
        raise_on_all(ranks, _check_empty(store, config, ranks))
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return store, lock


def _check_empty(store: CheckpointStore, config: CheckpointConfig, ranks: Ranks) -> str:
    """Return why a new run may not start in this folder."""
    if ranks.rank != 0 or config.resume != "never":
        return ""
    try:
        found = store.steps()
    except OSError as problem:
        return unreadable(store, problem)
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

"""Checkpoints: one shard a rank or stage, and a manifest with their hashes.

Knows trees of tensors and files, but neither Horovod nor MPI: what ranks tell each
other goes through ``Ranks``, which the jobs' packages implement. Read ``store.py``
first, then ``writer.py``.
"""

from knet_hvd.checkpoint.background import BackgroundTask
from knet_hvd.checkpoint.config import CheckpointConfig, check_num_steps, check_same_configuration
from knet_hvd.checkpoint.folder import open_store
from knet_hvd.checkpoint.loading import SavedJob, load_latest
from knet_hvd.checkpoint.lock import FolderLock, read_holder
from knet_hvd.checkpoint.manifest import FORMAT_VERSION, Manifest, note_versions
from knet_hvd.checkpoint.preemption import STOPPED_EXIT_CODE, StopSignals
from knet_hvd.checkpoint.ranks import Ranks
from knet_hvd.checkpoint.shards import (
    DamagedCheckpointError,
    ShardRecord,
    tree_from_bytes,
    tree_to_bytes,
)
from knet_hvd.checkpoint.state_tree import StateTree, snapshot
from knet_hvd.checkpoint.store import CheckpointStore
from knet_hvd.checkpoint.writer import AsyncCheckpointWriter

__all__ = [
    "FORMAT_VERSION",
    "STOPPED_EXIT_CODE",
    "AsyncCheckpointWriter",
    "BackgroundTask",
    "CheckpointConfig",
    "CheckpointStore",
    "DamagedCheckpointError",
    "FolderLock",
    "Manifest",
    "Ranks",
    "SavedJob",
    "ShardRecord",
    "StateTree",
    "StopSignals",
    "check_num_steps",
    "check_same_configuration",
    "load_latest",
    "note_versions",
    "open_store",
    "read_holder",
    "snapshot",
    "tree_from_bytes",
    "tree_to_bytes",
]

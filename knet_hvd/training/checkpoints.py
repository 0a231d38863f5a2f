"""What a training loop calls, with checkpoints or without."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import torch

from knet_hvd.checkpoint.config import CheckpointConfig, check_num_steps
from knet_hvd.checkpoint.folder import open_store
from knet_hvd.checkpoint.loading import SavedJob, load_latest
from knet_hvd.checkpoint.lock import FolderLock
from knet_hvd.checkpoint.manifest import Manifest, note_versions
from knet_hvd.checkpoint.preemption import StopSignals
from knet_hvd.checkpoint.ranks import Ranks
from knet_hvd.checkpoint.shards import ShardRecord
from knet_hvd.checkpoint.state_tree import StateTree
from knet_hvd.checkpoint.writer import AsyncCheckpointWriter
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar
from knet_hvd.training.config import JobConfig
from knet_hvd.training.position import Position, position_details

_VERSIONS = {"torch": torch.__version__}
Config = TypeVar("Config", bound=JobConfig)


class CheckpointManager(Generic[Config]):
    """Find what to go on from, and save the job; without a folder, do nothing.

    To inherit from: a job knows what its checkpoints hold, and which of them are its.

    Attributes:
        config: The job's, the same on all ranks.
    """

    def __init__(self, config: Config, signals: StopSignals | None) -> None:
        """Open and save nothing yet.

        Args:
            config: The job's, the same on all ranks.
            signals: Those that ask to stop; None to stop for none.
        """
        self.config = config
        self._signals = signals or StopSignals(())
        self._saved: SavedJob | None = None
        self._writer: AsyncCheckpointWriter | None = None
        self._lock: FolderLock | None = None

    def _open(
        self,
        kind: str,
        ranks: Ranks,
        shards_to_read: Callable[[Manifest], list[int]],
        check: Callable[[Manifest], None],
    ) -> None:
        """Open the folder, and read its latest good checkpoint.

        Args:
            kind: Of the job.
            ranks: All ranks.
            shards_to_read: Returns which this rank needs.
            check: Raises unless the checkpoint is of this job.

        Raises:
            CheckpointError: On every rank, if the folder cannot be used, or the
                checkpoint is of another configuration.
        """
        self._kind, self._ranks = kind, ranks
        self._store, self._lock = open_store(
            CheckpointConfig(
                checkpoint_dir=self.config.checkpoint_dir,
                checkpoint_every=self.config.checkpoint_every,
                keep_checkpoints=self.config.keep_checkpoints,
                resume=self.config.resume,
            ),
            ranks,
        )
        try:
            self._saved = load_latest(self._store, kind, shards_to_read, ranks)
            if self._saved is None and self.config.resume == "must":
                folder = self.config.checkpoint_dir
                raise CheckpointError(f"resume must: there is no checkpoint in {folder}")
            if self._saved is not None:
                check(self._saved.manifest)
                if ranks.rank == 0:
                    note_versions(self._saved.manifest, _VERSIONS)
        except BaseException:
            self.close()
            raise

    def _to_restore(self, num_steps: int) -> SavedJob | None:
        """Return the checkpoint to restore, if any.

        Raises:
            CheckpointError: If it is too late for a run of so many steps.
        """
        if self._saved is not None:
            schedule = self.config.learning_rate_schedule
            check_num_steps(self._saved.manifest, num_steps, schedule)
        return self._saved

    @property
    def position(self) -> Position:
        """Where the run begins."""
        return Position() if self._saved is None else Position.of(self._saved.manifest)

    @property
    def first_logged_step(self) -> int | None:
        """What TensorBoard is to take for the first step of this process."""
        return None if self.config.checkpoint_dir is None else self.position.step

    def _save_from_here(
        self,
        capture: Callable[[int], StateTree],
        configuration: dict[str, Scalar],
        details: Mapping[str, Scalar],
        batches_per_epoch: int,
        *,
        shard: int | None = None,
        lag: int = 0,
    ) -> None:
        """Begin to save the job.

        Args:
            capture: Returns this rank's shard after so many steps.
            configuration: The job's, flat.
            details: What else a manifest is to hold.
            batches_per_epoch: Steps of an epoch.
            shard: See ``AsyncCheckpointWriter``.
            lag: See there.
        """

        def describe(step: int, shards: tuple[ShardRecord, ...]) -> Manifest:
            return Manifest(
                kind=self._kind,
                step=step,
                shards=shards,
                configuration=configuration,
                details={**details, **position_details(step, batches_per_epoch)},
                versions=_VERSIONS,
            )

        self._writer = AsyncCheckpointWriter(
            self._store,
            self._ranks,
            self._signals,
            every=self.config.checkpoint_every,
            capture=capture,
            describe=describe,
            last_step=None if self._saved is None else self._saved.manifest.step,
            shard=shard,
            lag=lag,
        )

    def before_step(self) -> None:
        """See ``AsyncCheckpointWriter.before_step``."""
        if self._writer is not None:
            self._writer.before_step()

    def after_step(self, step: int, is_last: bool) -> None:
        """See ``AsyncCheckpointWriter.after_step``."""
        if self._writer is not None:
            self._writer.after_step(step, is_last)

    def finish(self, step: int) -> None:
        """See ``AsyncCheckpointWriter.finish``."""
        if self._writer is not None:
            self._writer.finish(step)

    def close(self) -> None:
        """Let another job have the folder."""
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            self._lock.release()

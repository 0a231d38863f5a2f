"""The checkpoints of a run, from its first step to its last."""

from collections.abc import Callable

import torch

from knet_hvd.checkpoint import (
    AsyncCheckpointWriter,
    CheckpointConfig,
    CheckpointStore,
    FolderLock,
    Manifest,
    SavedJob,
    ShardRecord,
    StopSignals,
    check_num_steps,
    load_latest,
    note_versions,
    open_store,
)
from knet_hvd.data import ShardedBatches
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar
from knet_hvd.training.config import JobConfig
from knet_hvd.training.state.interfaces import CheckpointRules, JobState, SavedState
from knet_hvd.training.state.resume_point import ResumePoint, resume_details

_VERSIONS = {"torch": torch.__version__}


class CheckpointManager:
    """Find what a run continues from, and save it; without a folder, do nothing.

    A job says in its ``CheckpointRules`` which checkpoints are its own, and in its ``JobState``
    what they hold.
    """

    def __init__(
        self, config: JobConfig, rules: CheckpointRules, signals: StopSignals | None = None
    ) -> None:
        """Open the folder, and read its latest good checkpoint.

        Args:
            config: The job's, the same on all ranks.
            rules: Of the job.
            signals: Those that ask to stop; None to stop for none.

        Raises:
            CheckpointError: On every rank, if the folder cannot be used, or the
                checkpoint is of another configuration.
        """
        self._config = config
        self._rules = rules
        self._signals = signals or StopSignals(())
        self._saved: SavedJob | None = None
        self._store: CheckpointStore | None = None
        self._writer: AsyncCheckpointWriter | None = None
        self._lock: FolderLock | None = None
        if config.checkpoint_dir is None:
            return
        settings = CheckpointConfig(
            checkpoint_dir=config.checkpoint_dir,
            checkpoint_every=config.checkpoint_every,
            keep_checkpoints=config.keep_checkpoints,
            resume=config.resume,
        )
        self._store, self._lock = open_store(settings, rules.ranks)
        try:
            self._saved = load_latest(self._store, rules.kind, rules.shards_to_read, rules.ranks)
            self._check_saved()
        except BaseException:
            self.close()
            raise

    def _check_saved(self) -> None:
        """Raise unless the run may continue from what was found."""
        if self._saved is None:
            if self._config.resume == "must":
                folder = self._config.checkpoint_dir
                raise CheckpointError(f"resume must: there is no checkpoint in {folder}")
            return
        self._rules.check(self._saved.manifest)
        if self._rules.ranks.rank == 0:
            note_versions(self._saved.manifest, _VERSIONS)

    @property
    def manifest(self) -> Manifest | None:
        """Return the manifest of the checkpoint that the run continues from, if any."""
        return None if self._saved is None else self._saved.manifest

    @property
    def resume_point(self) -> ResumePoint:
        """Return where the run begins or continues."""
        return ResumePoint() if self.manifest is None else ResumePoint.of(self.manifest)

    @property
    def first_logged_step(self) -> int | None:
        """Return what TensorBoard is to take for the first step of this process."""
        return None if self._store is None else self.resume_point.step

    def begin(self, state: JobState, batches: ShardedBatches, num_steps: int) -> None:
        """Bring a job to where its checkpoint was, and prepare to save it: see ``Checkpoints``.

        Raises:
            CheckpointError: If the checkpoint is of another model, or too late for this run.
        """
        if self._store is None:
            return
        saved = self._saved
        if saved is not None:
            step, num_ranks = saved.manifest.step, len(saved.manifest.shards)
            check_num_steps(saved.manifest, num_steps, self._config.learning_rate_schedule)
            state.restore(SavedState(saved.shards, num_ranks, step))
            saved.shards.clear()
        self._writer = AsyncCheckpointWriter(
            self._store,
            state.ranks,
            self._signals,
            every=self._config.checkpoint_every,
            capture=state.capture,
            describe=self._descriptions({**state.details, "num_steps": num_steps}, len(batches)),
            last_step=None if saved is None else saved.manifest.step,
            shard=state.shard,
            lag=state.lag,
        )

    def _descriptions(
        self, details: dict[str, Scalar], batches_per_epoch: int
    ) -> Callable[[int, tuple[ShardRecord, ...]], Manifest]:
        """Return what makes the manifest of a step and its shards."""

        def describe(step: int, shards: tuple[ShardRecord, ...]) -> Manifest:
            return Manifest(
                kind=self._rules.kind,
                step=step,
                shards=shards,
                configuration=self._rules.configuration,
                details={**details, **resume_details(step, batches_per_epoch)},
                versions=_VERSIONS,
            )

        return describe

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

"""The checkpoints of a data-parallel job, from the first step to the last."""

from dataclasses import dataclass, replace
from typing import Any

import horovod.torch as hvd
import torch

from knet_hvd.checkpoint import (
    CheckpointSchedule,
    Manifest,
    SavedJob,
    ShardRecord,
    StopSignals,
    TrainingHooks,
    check_num_steps,
    load_latest,
    note_versions,
    open_store,
)
from knet_hvd.config import CheckpointError, Scalar, to_flat_dict
from knet_hvd.data import ShardedBatches
from knet_hvd.data_parallel.auto_compression import named_choice
from knet_hvd.data_parallel.job_ranks import HorovodRanks
from knet_hvd.data_parallel.job_state import JobState, shards_to_read
from knet_hvd.data_parallel.resume_checks import check_configuration
from knet_hvd.data_parallel.training_config import TrainingConfig

KIND = "data_parallel"
_VERSIONS = {"torch": torch.__version__}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run begins, or goes on.

    Attributes:
        step: Steps made so far.
        epoch: Of the step before, whose evaluation may still be due.
        batch: Steps of that epoch that were made, behind ``images``.
        images: Images of that epoch that were used when ranks were more or fewer.
        remaining: What is left of a schedule of the learning rate, 1 to 0; None if it
            depends on nothing but the number of steps.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    images: int = 0
    remaining: float | None = None

    def remaining_at(self, step: int, num_steps: int) -> float:
        """Return what is left of a schedule, 1 to 0, in a run from this position.

        Args:
            step: Steps made so far.
            num_steps: Steps of the whole run.
        """
        if self.remaining is None:
            return 1.0 - step / num_steps
        steps_left = max(num_steps - self.step, 1)
        return self.remaining * (1.0 - (step - self.step) / steps_left)


class JobCheckpoints(TrainingHooks):
    """Find what to go on from, and save the job; without a folder, do nothing."""

    def __init__(self, config: TrainingConfig, signals: StopSignals | None) -> None:
        """Open the folder and read the latest good checkpoint of it.

        Args:
            config: The job's, the same on all ranks.
            signals: Those that ask to stop; None to stop for none.

        Raises:
            CheckpointError: On every rank, if the folder cannot be used, or the
                checkpoint is of another configuration.
        """
        super().__init__()
        self.config = config
        self._signals = signals or StopSignals(())
        self._saved: SavedJob | None = None
        if config.checkpoint_dir is None:
            return
        self._ranks = HorovodRanks()
        self._store, self._lock = open_store(config, self._ranks)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        """Read the latest good checkpoint, and check that it is of this job."""
        self._saved = load_latest(
            self._store,
            KIND,
            lambda manifest: shards_to_read(len(manifest.shards)),
            self._ranks,
        )
        if self._saved is None and self.config.resume == "must":
            raise CheckpointError(
                f"resume must: there is no checkpoint in {self.config.checkpoint_dir}"
            )
        if self._saved is not None:
            check_configuration(self._saved.manifest, self.config)
            if hvd.rank() == 0:
                note_versions(self._saved.manifest, _VERSIONS)

    @property
    def position(self) -> Position:
        """Where the run begins."""
        if self._saved is None:
            return Position()
        details = self._saved.manifest.details
        step = self._saved.manifest.step
        return Position(step, int(details["epoch"]), int(details["batch"]))

    @property
    def first_logged_step(self) -> int | None:
        """What TensorBoard is to take for the first step of this process."""
        return None if self.config.checkpoint_dir is None else self.position.step

    @property
    def advice(self) -> str:
        """What ``compression="auto"`` had found when the checkpoint's job began."""
        return str(self._saved.manifest.details["advice"]) if self._saved else ""

    def chosen(self, config: TrainingConfig) -> TrainingConfig:
        """Return a configuration whose ``auto`` is what the checkpoint's job chose.

        Timing again might choose otherwise, and the run would not go on bit for bit.
        """
        saved = self._saved
        if config.compression != "auto" or saved is None:
            return config
        if len(saved.manifest.shards) != hvd.size():
            return config
        details: Any = saved.manifest.details
        return replace(
            config, compression=details["compression"], exchange=details["exchange"]
        )

    def begin(self, state: JobState, batches: ShardedBatches, num_steps: int) -> None:
        """Bring the job to where the checkpoint was, and prepare to save it.

        Args:
            state: What is restored and captured.
            batches: Of the training set.
            num_steps: Steps of the whole run.

        Raises:
            CheckpointError: If the checkpoint is of another model, or too late for
                this run.
        """
        if self.config.checkpoint_dir is None:
            return
        last_step = None
        if self._saved is not None:
            check_num_steps(self._saved.manifest, num_steps, self.config.schedule)
            last_step = self._saved.manifest.step
            num_saved = len(self._saved.manifest.shards)
            state.restore(self._saved.shards, num_saved, last_step)
            self._saved.shards.clear()
        used = self.chosen(self.config)
        details = {"advice": self.advice, **_details(used, state.optimizer)}
        details["num_steps"] = num_steps
        configuration = to_flat_dict(self.config)
        batches_per_epoch = len(batches)

        def describe(step: int, shards: tuple[ShardRecord, ...]) -> Manifest:
            epoch = (step - 1) // batches_per_epoch
            position = {"epoch": epoch, "batch": step - epoch * batches_per_epoch}
            return Manifest(
                kind=KIND,
                step=step,
                shards=shards,
                configuration=configuration,
                details=details | position,
                versions=_VERSIONS,
            )

        self._schedule = CheckpointSchedule(
            self._store,
            self.config.checkpoint_every,
            state.capture,
            describe,
            self._signals,
            self._ranks,
            last_step,
        )


def _details(config: TrainingConfig, optimizer: Any) -> dict[str, Scalar]:
    """Return how gradients cross, once ``auto`` has been decided."""
    compression: str = config.compression
    exchange: str = config.exchange
    advice = getattr(optimizer, "compression_advice", None)
    if config.compression == "auto" and config.exchange != "allreduce":
        compression, exchange = named_choice(advice, config.exchange)
    found = {"advice": str(advice)} if advice is not None else {}
    return {"compression": compression, "exchange": exchange, **found}

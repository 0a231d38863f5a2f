"""The checkpoints of a pipeline job, from the first step to the last."""

from collections.abc import Callable
from dataclasses import dataclass

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
from knet_hvd.comm import World
from knet_hvd.config import CheckpointError
from knet_hvd.pipeline.config import PipelineConfig
from knet_hvd.pipeline.decouplers.registry import decoupler_class
from knet_hvd.pipeline.job_ranks import WorldRanks
from knet_hvd.pipeline.placement import Plan
from knet_hvd.pipeline.replicas import num_stages
from knet_hvd.pipeline.resume_checks import (
    check_configuration,
    check_cuts,
    plan_details,
    resolved,
    saved_plan,
)
from knet_hvd.pipeline.stage_state import StageState

KIND = "pipeline"
_LAG_PER_STAGE = 2
"""Steps by which a stage may be ahead of the next one without waiting for its flags."""
_VERSIONS = {"torch": torch.__version__}


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run begins, or goes on.

    Attributes:
        step: Steps made so far.
        epoch: Of the step before, whose evaluation may still be due.
        batch: Steps of that epoch that were made.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0


class PipelineCheckpoints(TrainingHooks):
    """Find what to go on from, and save the job; without a folder, do nothing."""

    def __init__(
        self, config: PipelineConfig, world: World, signals: StopSignals | None
    ) -> None:
        """Open the folder and read the latest good checkpoint of it.

        Args:
            config: The job's, the same on all ranks.
            world: All ranks; every rank has to call.
            signals: Those that ask to stop; None to stop for none.

        Raises:
            CheckpointError: On every rank, if the folder cannot be used, or the
                checkpoint is of another configuration.
        """
        super().__init__()
        self.config = config
        self._signals = signals or StopSignals(())
        self._ranks = WorldRanks(world)
        self._configuration = resolved(config, num_stages(config, world.size))
        self._saved: SavedJob | None = None
        if config.checkpoint_dir is None:
            return
        self._store, self._lock = open_store(config, self._ranks)
        try:
            self._load()
        except BaseException:
            self.close()
            raise

    def _load(self) -> None:
        """Read the latest good checkpoint, and check that it is of this job."""
        self._saved = load_latest(self._store, KIND, self._shards_to_read, self._ranks)
        if self._saved is None:
            if self.config.resume == "must":
                folder = self.config.checkpoint_dir
                raise CheckpointError(
                    f"resume must: there is no checkpoint in {folder}"
                )
            return
        manifest = self._saved.manifest
        check_configuration(manifest, self._configuration)
        if self._ranks.rank == 0:
            note_versions(manifest, _VERSIONS)

    def _shards_to_read(self, manifest: Manifest) -> list[int]:
        """Return this rank's shard, and that of its stage's first replica."""
        if len(manifest.shards) != self._ranks.size:
            return []  # refused by the configuration that it holds
        place = saved_plan(manifest).order.index(self._ranks.rank)
        return sorted({place - place % self.config.replicas, place})

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

    def plan(self, make_plan: Callable[[], Plan]) -> Plan:
        """Return where stages are cut and which ranks hold them.

        Measuring again might find other cuts: those of the checkpoint are kept.

        Args:
            make_plan: Returns the plan of a new run.

        Raises:
            CheckpointError: On every rank, if the checkpoint has other cuts.
        """
        if self._saved is None:
            return make_plan()
        saved = saved_plan(self._saved.manifest)
        if self.config.placement == "measured" and not self.config.cuts:
            return saved
        plan = make_plan()
        check_cuts(saved, plan)
        return plan

    def begin(
        self, state: StageState, plan: Plan, batches_per_epoch: int, num_steps: int
    ) -> None:
        """Bring this rank to where the checkpoint was, and prepare to save it.

        Args:
            state: What is restored and captured.
            plan: Which stage this rank holds.
            batches_per_epoch: Steps of an epoch.
            num_steps: Steps of the whole run.

        Raises:
            CheckpointError: If the checkpoint is of another model, or too late for
                this run.
        """
        if self.config.checkpoint_dir is None:
            return
        place = plan.order.index(self._ranks.rank)
        last_step = None
        if self._saved is not None:
            schedule = self.config.learning_rate_schedule
            check_num_steps(self._saved.manifest, num_steps, schedule)
            last_step = self._saved.manifest.step
            shards = self._saved.shards
            state.restore(shards[place], shards[place - place % self.config.replicas])
            shards.clear()
        details = plan_details(plan) | {"num_steps": num_steps}

        def describe(step: int, shards: tuple[ShardRecord, ...]) -> Manifest:
            epoch = (step - 1) // batches_per_epoch
            position = {"epoch": epoch, "batch": step - epoch * batches_per_epoch}
            return Manifest(
                kind=KIND,
                step=step,
                shards=shards,
                configuration=self._configuration,
                details=details | position,
                versions=_VERSIONS,
            )

        locked = decoupler_class(self.config.decoupler).locked
        self._schedule = CheckpointSchedule(
            self._store,
            self.config.checkpoint_every,
            state.capture,
            describe,
            self._signals,
            self._ranks,
            last_step,
            shard=place,
            lag=0 if locked else _LAG_PER_STAGE * (len(plan.cuts) + 1),
        )

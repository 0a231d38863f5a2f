"""The checkpoints of a pipeline job, from the first step to the last."""

from knet_hvd.checkpoint import Manifest, StopSignals
from knet_hvd.comm import World
from knet_hvd.pipeline.placement.cuts import num_stages
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.training.checkpoints import CheckpointManager
from knet_hvd.training.pipeline.checkpoint_ranks import WorldRanks
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.rank_state import StageState
from knet_hvd.training.pipeline.resume import (
    check_configuration,
    plan_details,
    resolved,
    saved_plan,
)

KIND = "pipeline"
_LAG_PER_STAGE = 2
"""Steps by which a stage may be ahead of the next one without waiting for its flags."""


class PipelineCheckpoints(CheckpointManager[PipelineConfig]):
    """Find what to go on from, and save the job; without a folder, do nothing."""

    def __init__(self, config: PipelineConfig, world: World, signals: StopSignals | None) -> None:
        """Open the folder and read the latest good checkpoint of it.

        Args:
            config: The job's, the same on all ranks.
            world: All ranks; every rank has to call.
            signals: Those that ask to stop; None to stop for none.

        Raises:
            CheckpointError: On every rank, if the folder cannot be used, or the
                checkpoint is of another configuration.
        """
        super().__init__(config, signals)
        self._world = world
        self._configuration = resolved(
            config, num_stages(world.size, config.replicas, config.stages)
        )
        if config.checkpoint_dir is not None:
            self._open(
                KIND,
                WorldRanks(world),
                self._shards_to_read,
                lambda manifest: check_configuration(manifest, self._configuration),
            )

    def _shards_to_read(self, manifest: Manifest) -> list[int]:
        """Return this rank's shard, and that of its stage's first replica."""
        if len(manifest.shards) != self._world.size:
            return []  # refused by the configuration that it holds
        place = saved_plan(manifest).order.index(self._world.rank)
        return sorted({place - place % self.config.replicas, place})

    @property
    def saved_plan(self) -> Plan | None:
        """Where stages were cut and which ranks held them, if the run continues."""
        return None if self._saved is None else saved_plan(self._saved.manifest)

    def begin(self, state: StageState, plan: Plan, batches_per_epoch: int, num_steps: int) -> None:
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
        place = plan.order.index(self._world.rank)
        saved = self._to_restore(num_steps)
        if saved is not None:
            first = saved.shards[place - place % self.config.replicas]
            state.restore(saved.shards[place], first)
            saved.shards.clear()
        # A rank that waits for the others still receives what would block one of them.
        self._ranks = WorldRanks(self._world, state.runner.poll_gradients)
        locked = self.config.decoupler.locked
        self._save_from_here(
            state.capture,
            self._configuration,
            plan_details(plan) | {"num_steps": num_steps},
            batches_per_epoch,
            shard=place,
            lag=0 if locked else _LAG_PER_STAGE * (len(plan.cuts) + 1),
        )

"""The state of a pipeline job on one rank, as a shard of a checkpoint."""

from typing import Any

from knet_hvd.checkpoint import StateTree, snapshot
from knet_hvd.comm import World
from knet_hvd.devices.random_state import load_random_states
from knet_hvd.pipeline.runners.settling import settle
from knet_hvd.pipeline.runners.world_ranks import WorldRanks
from knet_hvd.training.pipeline.build import StageJob
from knet_hvd.training.pipeline.resume import plan_details
from knet_hvd.training.state.ema import ParameterEma
from knet_hvd.training.state.interfaces import JobState, SavedState
from knet_hvd.training.state.rank_state import Part, RankState

_LAG_PER_STAGE = 2
"""Steps by which a stage may be ahead of the next one without waiting for its flags."""


class StageState(JobState):
    """Capture and restore the state of one rank.

    The first replica's shard holds what is the same on all replicas of the stage. Every
    replica's holds what is its own: batch statistics, residuals and counters of the codec,
    random numbers, and the batches and gradients that are under way.
    """

    def __init__(self, job: StageJob, world: World, average: ParameterEma) -> None:
        """Take what is captured and restored.

        Args:
            job: What this rank trains with.
            world: All ranks.
            average: Of the stage's parameters.
        """
        stage, source = job.stage, job.gradient_source
        decoupler = Part("decoupler", source.modules, source.optimizer)
        name = f"stage {stage.index}"
        self.rank_state = RankState(
            stage.blocks, stage.optimizer, average, name, (decoupler,), device=stage.device
        )
        # A rank that waits for the others still receives what would block one of them.
        self.ranks = WorldRanks(world, job.built.runner.poll_gradients)
        self.shard = job.member.plan.order.index(world.rank)
        self.lag = 0 if job.member.spec.decoupler.locked else _LAG_PER_STAGE * stage.num_stages
        self.details = plan_details(job.member.plan)
        self._job = job
        self._world = world

    def capture(self, step: int) -> StateTree:
        """Return this rank's shard: see ``JobState``."""
        job, built, source = self._job, self._job.built, self._job.gradient_source
        error = self.rank_state.divergence(step)
        settle(self._world, built.links, built.runner, built.next_rank, error)
        own: dict[str, Any] = {
            "stage": job.stage.index,
            "replica": job.replicas.index,
            "under_way": built.runner.state(),
            "metrics": dict(source.metrics),
            "compression": [
                job.replicas.compression_state(optimizer)
                for optimizer in (job.stage.optimizer, source.optimizer)
            ],
        }
        is_first = job.replicas.index == 0
        return snapshot(own) | self.rank_state.capture(shared=is_first)

    def restore(self, saved: SavedState) -> None:
        """Bring this rank to a state that was captured, bit for bit: see ``JobState``."""
        job, source = self._job, self._job.gradient_source
        own = saved.shards[self.shard]
        self.rank_state.restore(own, saved.shards[self.shard - job.replicas.index])
        optimizers = (job.stage.optimizer, source.optimizer)
        for optimizer, state in zip(optimizers, own["compression"], strict=True):
            job.replicas.load_compression_state(optimizer, state)
        job.built.runner.load_state(own["under_way"])
        source.metrics = dict(own["metrics"])
        load_random_states(job.stage.device, own)

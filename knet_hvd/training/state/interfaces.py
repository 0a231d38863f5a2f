"""Interfaces between the training loop, what a rank trains, and what keeps its state."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from knet_hvd.checkpoint import Manifest, Ranks, StateTree
from knet_hvd.data import ShardedBatches
from knet_hvd.flat_config import Scalar
from knet_hvd.training.state.rank_state import RankState
from knet_hvd.training.state.resume_point import ResumePoint


@dataclass(frozen=True, slots=True)
class SavedState:
    """What a run continues from.

    Attributes:
        shards: Those that this rank needs, by number.
        num_ranks: Ranks of the run that was saved.
        step: Steps that it had made.
    """

    shards: dict[int, StateTree]
    num_ranks: int
    step: int


class JobState(ABC):
    """The state of a job on one rank, as a shard of a checkpoint.

    Attributes:
        rank_state: What both jobs have of it.
        ranks: All ranks of the job.
        shard: The number of this rank's shard.
        lag: Steps by which a rank may be ahead of another.
        details: What else a checkpoint's manifest is to hold.
    """

    rank_state: RankState
    ranks: Ranks
    shard: int
    lag: int
    details: Mapping[str, Scalar]

    @abstractmethod
    def capture(self, step: int) -> StateTree:
        """Return this rank's shard; nothing of it changes with the next step.

        All ranks call it after the same step.

        Raises:
            KnetError: If training has diverged: useless checkpoints must not take the place of
                good ones.
        """

    @abstractmethod
    def restore(self, saved: SavedState) -> None:
        """Bring this rank to a state that was captured.

        Raises:
            CheckpointError: If names or shapes are not those of this model.
        """


class Checkpoints(Protocol):
    """What the training loop needs of what keeps its state."""

    @property
    def resume_point(self) -> ResumePoint:
        """Return where the run begins or continues."""

    @property
    def first_logged_step(self) -> int | None:
        """Return what TensorBoard is to take for the first step of this process."""

    def begin(self, state: JobState, batches: ShardedBatches, num_steps: int) -> None:
        """Bring a job to where the run continues, and prepare to save it.

        Args:
            state: What is restored and captured.
            batches: Of the training set.
            num_steps: Steps of the whole run.
        """

    def before_step(self) -> None:
        """Do what has to be done before a step; every rank calls."""

    def after_step(self, step: int, is_last: bool) -> None:
        """Save the job if it is time; every rank calls.

        Args:
            step: Steps made so far.
            is_last: Whether it was the run's last step.
        """

    def finish(self, step: int) -> None:
        """Wait until the state after the last step is saved."""

    def close(self) -> None:
        """Let another job have the folder."""


class CheckpointRules(Protocol):
    """Which checkpoints are a job's: what is known before anything is built."""

    @property
    def kind(self) -> str:
        """Return the kind of job."""

    @property
    def ranks(self) -> Ranks:
        """Return all ranks."""

    @property
    def configuration(self) -> Mapping[str, Scalar]:
        """Return the job's configuration, flat, as a manifest holds it."""

    def shards_to_read(self, manifest: Manifest) -> list[int]:
        """Return the numbers of the shards that this rank needs."""

    def check(self, manifest: Manifest) -> None:
        """Raise unless the job may continue from a checkpoint.

        Raises:
            CheckpointError: Names all that differs and may not.
        """

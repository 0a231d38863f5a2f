"""What a worker keeps in memory to go back to when another one is lost."""

from dataclasses import dataclass, field
from typing import Any

from knet_hvd.checkpoint import StateTree
from knet_hvd.training.state.resume_point import ResumePoint

NO_STEP = -1


@dataclass(frozen=True, slots=True)
class Commit:
    """The job as one worker can bring it back.

    Attributes:
        resume_point: Where the run continues.
        shard: Of ``DataParallelState.capture``, whole.
    """

    resume_point: ResumePoint
    shard: StateTree


@dataclass(slots=True)
class Meeting:
    """The workers met: in the beginning, and whenever their number may have changed.

    Attributes:
        step: From which they continue.
        num_ranks: How many they are.
        steps_lost: Steps that were made and have to be made again.
    """

    step: int
    num_ranks: int
    steps_lost: int


@dataclass(slots=True)
class CommitMemory:
    """The last two commits of a worker, which outlive all that is rebuilt.

    Two, because a worker may be lost while some of the others have made a commit and
    some have not yet: all have the earlier one. Never more, since every step is made
    together.

    Attributes:
        meetings: Of the whole job.
        steps_made: By this worker, committed or not.
    """

    meetings: list[Meeting] = field(default_factory=list)
    steps_made: int = NO_STEP
    _commits: dict[int, Commit] = field(default_factory=dict)

    @property
    def latest(self) -> int:
        """Step of the latest commit; ``NO_STEP`` for a worker that is new."""
        return max(self._commits, default=NO_STEP)

    def add(self, commit: Commit) -> None:
        """Keep a commit, and the one before it."""
        self._commits[commit.resume_point.step] = commit
        for step in sorted(self._commits)[:-2]:
            del self._commits[step]

    def back_to(self, step: int) -> Commit:
        """Forget what came after a commit, and return it."""
        for later in [each for each in self._commits if each > step]:
            del self._commits[later]
        return self._commits[step]

    def facts(self) -> dict[str, Any]:
        """Return what a job's summary says of its workers."""
        sizes = [meeting.num_ranks for meeting in self.meetings]
        return {
            "resets": len(sizes) - 1,
            "sizes": sizes,
            "reset_steps": [meeting.step for meeting in self.meetings[1:]],
            "steps_lost": sum(meeting.steps_lost for meeting in self.meetings),
        }

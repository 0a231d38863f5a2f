"""What every rank has of a pipeline from its beginning to its end, and can save."""

from pathlib import Path
from types import TracebackType
from typing import TypeVar

from torch import Tensor

from knet_hvd.comm import World
from knet_hvd.comm.transfer import gather_tensors
from knet_hvd.pipeline.api.checkpoint import load_member, save_member
from knet_hvd.pipeline.api.ending import Ending
from knet_hvd.pipeline.api.losses import StepLosses
from knet_hvd.pipeline.api.member import Member
from knet_hvd.pipeline.api.tracking import Tracking
from knet_hvd.pipeline.placement.planning import plan_table
from knet_hvd.pipeline.placement.search import Plan
from knet_hvd.pipeline.stage import Stage

Session = TypeVar("Session", bound="PipelineSession")


class PipelineSession:
    """Meet all ranks, keep the state of this one, and part; every rank calls the same methods.

    Attributes:
        rank: This process.
        num_steps: Steps made so far.
    """

    _member: Member
    _losses: StepLosses
    _tracking: Tracking

    def __init__(self, timeout_s: float) -> None:
        """Meet all other ranks.

        Args:
            timeout_s: The longest wait for another rank.

        Raises:
            KnetError: If a rank does not come.
        """
        self._world = World(timeout_s)
        self.rank = self._world.rank
        self.num_steps = 0
        self._is_closed = False
        self._ending = Ending(self._world, self.close)

    @property
    def plan(self) -> Plan:
        """Return which blocks are on which ranks."""
        return self._member.plan

    def placement(self) -> str:
        """Return which blocks are where, as a table in Markdown."""
        return plan_table(self.plan, self._member.block_names)

    @property
    def stage(self) -> Stage:
        """Return the blocks of this rank."""
        return self._member.stage

    @property
    def idle_s(self) -> float:
        """Return the seconds that this rank has waited for others since the start."""
        return self._world.waiter.idle_s

    @property
    def sent_bytes(self) -> int:
        """Return the bytes that this rank has sent to other stages since the start."""
        return self._member.sent_bytes

    def drain(self) -> None:
        """Learn from all gradients that are still to come back; every rank has to call.

        Evaluation, export and the end do so too.
        """
        with self._ending.telling():
            self._member.drain()

    def export(self) -> dict[str, Tensor] | None:
        """Return the state dictionary of the whole model; every rank has to call.

        First learns from all gradients that are still to come back.

        Returns:
            On rank 0, under the names of the user's network; None elsewhere.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            self._member.drain()
            self._member.agree()
            return gather_tensors(self._world, self._member.state(), "the model's state")

    def save(self, folder: str | Path, keep: int = 3) -> None:
        """Save the state of all ranks after the last step; every rank has to call.

        What is under way is saved with it: nothing is learned early. A checkpoint is there
        as a whole or not at all.

        Args:
            folder: Of the checkpoints, seen by all ranks.
            keep: How many of the latest checkpoints stay.

        Raises:
            CheckpointError: On every rank, if it could not be written.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            save_member(self._member, Path(folder), self.num_steps, keep)

    def load(self, folder: str | Path, batch_size: int) -> int:
        """Continue from the latest good checkpoint; every rank has to call.

        Also brings back PyTorch's generator, so that a loader that shuffles with it draws
        what it would have drawn.

        Args:
            folder: Of the checkpoints.
            batch_size: The most samples of a batch, as in the run that was saved.

        Returns:
            The steps made by then; 0 if there is no checkpoint.

        Raises:
            CheckpointError: On every rank, if no checkpoint is good, or the latest is of
                another pipeline.
        """
        with self._ending.after_steps(self.num_steps, self._member.poll):
            self.num_steps = load_member(self._member, Path(folder), batch_size)
            if self.num_steps:
                self._tracking.continue_after(self.num_steps)
        return self.num_steps

    def close(self) -> None:
        """Learn from what is still to come back, and let go of all links.

        The end of the script does so too.
        """
        if self._is_closed:
            return
        self._is_closed = True
        with self._ending.after_steps(self.num_steps, self._member.poll):
            self._member.drain()
            self._losses.close()
            self._member.close()
            self._tracking.close()
        self._world.close()
        self._ending.forget()

    def __enter__(self: Session) -> Session:
        """Return the pipeline, which the end of the block closes."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the pipeline, or tell the other ranks of an error."""
        if error is None:
            self.close()
        else:
            self._ending.fail(error)

"""What the trainers of both jobs share: where a run begins, and how it ends."""

from typing import Protocol

from knet_hvd.training.position import Position


class Checkpoints(Protocol):
    """What a trainer needs of what keeps its state.

    Attributes:
        position: Where the run begins.
    """

    @property
    def position(self) -> Position:
        """Return where the run begins."""

    def finish(self, step: int) -> None:
        """Wait until the state after the last step is saved."""

    def close(self) -> None:
        """Let another job have the folder."""


class Trainer:
    """Base of the trainers: a run of so many steps, from a checkpoint or from the start.

    Attributes:
        num_steps: Steps of the whole run.
    """

    num_steps: int
    _checkpoints: Checkpoints

    def _plan_steps(self, num_steps: int, max_steps: int | None) -> None:
        """Set the steps of the whole run.

        Args:
            num_steps: Those of all epochs.
            max_steps: The most there may be; None for no limit.
        """
        self.num_steps = num_steps if max_steps is None else min(num_steps, max_steps)

    @property
    def resumed_step(self) -> int:
        """Steps that a checkpoint held, after which the run continues; 0 without one."""
        return self._checkpoints.position.step

    @property
    def resumed_text(self) -> str:
        """Say where the run continues."""
        if self.resumed_step >= self.num_steps:
            return f"already complete: step {self.resumed_step} of {self.num_steps}; evaluating"
        return f"resuming after step {self.resumed_step}"

    def close(self) -> None:
        """Wait for the last checkpoint, and let another job have the folder.

        Raises:
            CheckpointError: On every rank, if the last one could not be written.
        """
        try:
            self._checkpoints.finish(self.num_steps)
        finally:
            self._checkpoints.close()

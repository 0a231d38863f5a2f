"""What a training loop calls, with checkpoints or without."""

from knet_hvd.checkpoint.lock import FolderLock
from knet_hvd.checkpoint.schedule import CheckpointSchedule


class TrainingHooks:
    """Pass a training loop's steps on to a schedule, if there is a folder for it.

    A job's own class sets both attributes once it has opened its folder.
    """

    def __init__(self) -> None:
        """Save nothing yet."""
        self._schedule: CheckpointSchedule | None = None
        self._lock: FolderLock | None = None

    def before_step(self) -> None:
        """See ``CheckpointSchedule.before_step``."""
        if self._schedule is not None:
            self._schedule.before_step()

    def after_step(self, step: int, is_last: bool) -> None:
        """See ``CheckpointSchedule.after_step``."""
        if self._schedule is not None:
            self._schedule.after_step(step, is_last)

    def finish(self, step: int) -> None:
        """See ``CheckpointSchedule.finish``."""
        if self._schedule is not None:
            self._schedule.finish(step)

    def close(self) -> None:
        """Let another job have the folder."""
        if self._schedule is not None:
            self._schedule.close()
        if self._lock is not None:
            self._lock.release()

"""Where a run begins or continues."""

from dataclasses import dataclass

from knet_hvd.checkpoint.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a run begins or continues.

    Attributes:
        step: Steps made so far.
        epoch: Of the step before, whose evaluation may still be due.
        batch: Steps of that epoch that were made after ``samples``.
        samples: Samples of that epoch that were used when ranks were more or fewer.
        remaining: What is left of a schedule of the learning rate, 1 to 0; None if it
            depends on nothing but the number of steps.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    samples: int = 0
    remaining: float | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> "ResumePoint":
        """Return where a checkpoint was written.

        Args:
            manifest: Its details hold what `resume_details` returned.
        """
        return cls(manifest.step, manifest.detail("epoch", int), manifest.detail("batch", int))

    def remaining_at(self, step: int, num_steps: int) -> float:
        """Return what is left of a schedule, 1 to 0, in a run from this point.

        Args:
            step: Steps made so far.
            num_steps: Steps of the whole run.
        """
        if self.remaining is None:
            return 1.0 - step / num_steps
        steps_left = max(num_steps - self.step, 1)
        return self.remaining * (1.0 - (step - self.step) / steps_left)


def resume_details(step: int, batches_per_epoch: int) -> dict[str, int]:
    """Return what `ResumePoint.of` needs in a manifest's details.

    Args:
        step: Steps made so far, at least 1.
        batches_per_epoch: Steps of an epoch.
    """
    epoch = (step - 1) // batches_per_epoch
    return {"epoch": epoch, "batch": step - epoch * batches_per_epoch}

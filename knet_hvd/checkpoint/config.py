"""Settings of a job's checkpoints, and which settings a resumed job may change."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from knet_hvd.checkpoint.manifest import Manifest
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """The settings that every job with checkpoints has; to inherit from.

    Raises:
        ValueError: If a setting is out of range.
    """

    checkpoint_dir: Path | None = None
    """Folder for checkpoints, seen by all ranks; none are written without it. With it,
    SIGUSR1 and SIGTERM make the job save its state and exit with code 75."""

    checkpoint_every: int = 500
    """Steps between checkpoints; one more is written at the end."""

    keep_checkpoints: int = 3
    """How many of the latest checkpoints stay."""

    resume: Literal["auto", "never", "must"] = "auto"
    """auto: continue from the latest good checkpoint if there is one; never: the folder
    must be empty; must: a checkpoint must be there."""

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.checkpoint_dir is None and self.resume == "must":
            raise ValueError("resume must: expected a checkpoint_dir to resume from")


def check_same_configuration(
    saved: Mapping[str, Scalar], present: Mapping[str, Scalar], may_differ: Collection[str]
) -> None:
    """Raise unless a job may continue from a checkpoint of another configuration.

    Args:
        saved: The checkpoint's configuration, flat.
        present: The job's.
        may_differ: Names of settings that do not change what is computed.

    Raises:
        CheckpointError: Names every setting that differs and may not.
    """
    names = [name for name in {**saved, **present} if name not in may_differ]
    differing = [
        f"{name}: {saved.get(name, 'unknown')} there, {present.get(name, 'unknown')} here"
        for name in names
        if saved.get(name) != present.get(name)
    ]
    if differing:
        raise CheckpointError(
            "the checkpoint is of another configuration ("
            + "; ".join(differing)
            + "): give the settings that it was made with, or another checkpoint_dir"
        )


def check_num_steps(manifest: Manifest, num_steps: int, schedule: str) -> None:
    """Raise unless a run of so many steps can continue from a checkpoint.

    Args:
        manifest: Of the checkpoint; its details hold ``num_steps``.
        num_steps: Steps of the whole run.
        schedule: Of the learning rate; any but ``constant`` depends on the steps.

    Raises:
        CheckpointError: If it is of a later step, or its learning rates would change.
    """
    if manifest.step > num_steps:
        raise CheckpointError(
            f"the checkpoint is of step {manifest.step}, and the run is to have "
            f"{num_steps}: raise epochs or max_steps"
        )
    before = manifest.detail("num_steps", int)
    if schedule != "constant" and before != num_steps:
        raise CheckpointError(
            f"epochs, max_steps: the checkpoint is of a run of {before} steps; this "
            f"one is to have {num_steps}, and the {schedule} schedule of the "
            "learning rate depends on it"
        )

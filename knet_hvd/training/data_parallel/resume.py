"""Whether a data-parallel job may go on from a checkpoint."""

import horovod.torch as hvd

from knet_hvd.checkpoint import Manifest, check_same_configuration
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import to_flat_dict
from knet_hvd.training.data_parallel.config import TrainingConfig

MAY_DIFFER = frozenset(
    (
        *("checkpoint_dir", "checkpoint_every", "keep_checkpoints", "resume"),
        *("data_dir", "epochs", "max_steps", "logdir", "summary", "profile"),
        "timeout_s",
        *("log_every", "histogram_every", "histogram_layers", "batch_size"),
        *("elastic", "commit_every"),
    )
)
"""Settings that do not change what a step computes; of ``batch_size`` only the sum over
all ranks counts, and of ``epochs`` and ``max_steps`` only what a schedule sees."""


def check_configuration(manifest: Manifest, config: TrainingConfig) -> None:
    """Raise unless the checkpoint's job is this one, on as many ranks or not.

    Args:
        manifest: Of the checkpoint.
        config: The present one.

    Raises:
        CheckpointError: Names all settings that differ and may not.
    """
    # A setting that did not exist when the checkpoint was written had its default.
    saved = to_flat_dict(TrainingConfig()) | dict(manifest.configuration)
    check_same_configuration(saved, to_flat_dict(config), MAY_DIFFER)
    there, here = len(manifest.shards), hvd.size()
    total = there * int(saved["batch_size"])
    if total != here * config.batch_size:
        fit = f", with --batch-size {total // here}" if total % here == 0 else ""
        raise CheckpointError(
            f"batch_size: the checkpoint is of {there} ranks with "
            f"{saved['batch_size']} images each, {total} in all; here are {here} ranks "
            f"with {config.batch_size} each. The order of the images depends on the "
            f"sum: keep it{fit}"
        )

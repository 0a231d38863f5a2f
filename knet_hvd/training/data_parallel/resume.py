"""Whether a data-parallel job may go on from a checkpoint."""

import horovod.torch as hvd

from knet_hvd.checkpoint import Manifest, check_same_configuration
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import to_flat_dict
from knet_hvd.training.config import may_differ
from knet_hvd.training.data_parallel.config import TrainingConfig


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
    check_same_configuration(saved, to_flat_dict(config), may_differ(TrainingConfig))
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

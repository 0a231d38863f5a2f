"""Which checkpoints a data-parallel job may continue from, and how."""

from dataclasses import replace
from typing import Any

import horovod.torch as hvd

from knet_hvd.checkpoint import Manifest, check_same_configuration
from knet_hvd.data_parallel.calibration.auto import advised_choice
from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer
from knet_hvd.data_parallel.ranks.checkpoint_ranks import HorovodRanks
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar, to_flat_dict
from knet_hvd.training.config import may_differ
from knet_hvd.training.data_parallel.config import TrainingConfig


class DataParallelRules:
    """Implement ``CheckpointRules``."""

    kind = "data_parallel"

    def __init__(self, config: TrainingConfig) -> None:
        """Take the job's configuration, the same on all ranks."""
        self.ranks = HorovodRanks()
        self.configuration = to_flat_dict(config)

    def shards_to_read(self, manifest: Manifest) -> list[int]:
        """Return rank 0's shard and this rank's; those of all for another number of ranks."""
        num_saved = len(manifest.shards)
        if num_saved == self.ranks.size:
            return sorted({0, self.ranks.rank})
        return list(range(num_saved))  # for the mean of their residuals

    def check(self, manifest: Manifest) -> None:
        """Raise unless the checkpoint's job is this one, on as many ranks or not.

        Raises:
            CheckpointError: Names all settings that differ and may not.
        """
        # A setting that did not exist when the checkpoint was written had its default.
        saved = to_flat_dict(TrainingConfig()) | dict(manifest.configuration)
        check_same_configuration(saved, self.configuration, may_differ(TrainingConfig))
        there, here = len(manifest.shards), self.ranks.size
        total = there * int(saved["batch_size"])
        batch_size = int(self.configuration["batch_size"])
        if total != here * batch_size:
            fit = f", with --batch-size {total // here}" if total % here == 0 else ""
            raise CheckpointError(
                f"batch_size: the checkpoint is of {there} ranks with "
                f"{saved['batch_size']} images each, {total} in all; here are {here} ranks "
                f"with {batch_size} each. The order of the images depends on the "
                f"sum: keep it{fit}"
            )


def chosen(config: TrainingConfig, manifest: Manifest | None) -> TrainingConfig:
    """Return a configuration whose ``auto`` is what the checkpoint's job chose.

    Timing again might choose otherwise, and the run would not continue bit for bit.

    Args:
        config: The job's.
        manifest: Of the checkpoint that the run continues from, if any.
    """
    if config.compression != "auto" or manifest is None:
        return config
    if len(manifest.shards) != hvd.size():
        return config
    names: Any = {name: manifest.detail(name, str) for name in ("compression", "exchange")}
    return replace(config, **names)


def choice_details(config: TrainingConfig, optimizer: AveragingOptimizer) -> dict[str, Scalar]:
    """Return what ``chosen`` needs in a manifest's details.

    Args:
        config: With what a checkpoint's job chose, if the run continues from one.
        optimizer: Made with it.
    """
    compression: str = config.compression
    exchange: str = config.exchange
    advice = optimizer.compression_advice
    if config.compression == "auto" and config.exchange != "allreduce":
        compression, exchange = advised_choice(advice, config.exchange)
    found = {"advice": str(advice)} if advice is not None else {}
    return {"compression": compression, "exchange": exchange, **found}

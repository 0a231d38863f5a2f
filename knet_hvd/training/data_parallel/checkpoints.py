"""The checkpoints of a data-parallel job, from the first step to the last."""

from dataclasses import replace
from typing import Any

import horovod.torch as hvd

from knet_hvd.checkpoint import StopSignals
from knet_hvd.data import ShardedBatches
from knet_hvd.data_parallel.calibration.auto import advised_choice
from knet_hvd.data_parallel.ranks.checkpoint_ranks import HorovodRanks
from knet_hvd.flat_config import Scalar, to_flat_dict
from knet_hvd.training.checkpoints import CheckpointManager
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.rank_state import JobState, shards_to_read
from knet_hvd.training.data_parallel.resume import check_configuration

KIND = "data_parallel"


class JobCheckpoints(CheckpointManager[TrainingConfig]):
    """Find what to go on from, and save the job; without a folder, do nothing."""

    def __init__(self, config: TrainingConfig, signals: StopSignals | None) -> None:
        """Open the folder and read the latest good checkpoint of it.

        Args:
            config: The job's, the same on all ranks.
            signals: Those that ask to stop; None to stop for none.

        Raises:
            CheckpointError: On every rank, if the folder cannot be used, or the
                checkpoint is of another configuration.
        """
        super().__init__(config, signals)
        if config.checkpoint_dir is not None:
            self._open(
                KIND,
                HorovodRanks(),
                lambda manifest: shards_to_read(len(manifest.shards)),
                lambda manifest: check_configuration(manifest, config),
            )

    @property
    def advice(self) -> str:
        """What ``compression="auto"`` had found when the checkpoint's job began."""
        return self._saved.manifest.detail("advice", str) if self._saved else ""

    def chosen(self, config: TrainingConfig) -> TrainingConfig:
        """Return a configuration whose ``auto`` is what the checkpoint's job chose.

        Timing again might choose otherwise, and the run would not go on bit for bit.
        """
        saved = self._saved
        if config.compression != "auto" or saved is None:
            return config
        if len(saved.manifest.shards) != hvd.size():
            return config
        names: Any = {
            name: saved.manifest.detail(name, str) for name in ("compression", "exchange")
        }
        return replace(config, **names)

    def begin(self, state: JobState, batches: ShardedBatches, num_steps: int) -> None:
        """Bring the job to where the checkpoint was, and prepare to save it.

        Args:
            num_steps: Steps of the whole run.

        Raises:
            CheckpointError: If the checkpoint is of another model, or too late.
        """
        if self.config.checkpoint_dir is None:
            return
        saved = self._to_restore(num_steps)
        if saved is not None:
            state.restore(saved.shards, len(saved.manifest.shards), saved.manifest.step)
            saved.shards.clear()
        used = self.chosen(self.config)
        details = {"advice": self.advice, **_details(used, state.optimizer)}
        self._save_from_here(
            state.capture,
            to_flat_dict(self.config),
            {**details, "num_steps": num_steps},
            len(batches),
        )


def _details(config: TrainingConfig, optimizer: Any) -> dict[str, Scalar]:
    """Return how gradients cross, once ``auto`` has been decided."""
    compression: str = config.compression
    exchange: str = config.exchange
    advice = optimizer.compression_advice
    if config.compression == "auto" and config.exchange != "allreduce":
        compression, exchange = advised_choice(advice, config.exchange)
    found = {"advice": str(advice)} if advice is not None else {}
    return {"compression": compression, "exchange": exchange, **found}

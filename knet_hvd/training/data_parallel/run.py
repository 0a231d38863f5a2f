"""How a data-parallel run is put together."""

from collections.abc import Callable

from knet_hvd.agreement import check_agreement
from knet_hvd.checkpoint import StopSignals
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.data_parallel.exchanges.registry import check_exchange
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.resume import DataParallelRules
from knet_hvd.training.data_parallel.task import DataParallelTask
from knet_hvd.training.loop.trainer import Trainer, closed_on_error
from knet_hvd.training.state.checkpoints import CheckpointManager


def check_ranks(config: TrainingConfig) -> None:
    """Raise on every rank unless all have the same configuration; Horovod is initialized.

    Raises:
        RankMismatchError: Names what differs.
        ValueError: If there is no such exchange.
    """
    if config.exchange != "allreduce":
        check_exchange(config.exchange)
    ranks = CollectiveRanks(HorovodCollectives())
    check_agreement(ranks, config.facts(), "the job's configuration", same_names=True)


def open_trainer(
    config: TrainingConfig,
    signals: StopSignals | None = None,
    on_progress: Callable[[], None] = lambda: None,
) -> Trainer[DataParallelTask]:
    """Build this rank's part of a run, from a checkpoint or from the start.

    Horovod is initialized; every rank has to call.

    Args:
        config: The same on every rank.
        signals: Those that ask the job to save its state and stop.
        on_progress: Called after each step and each evaluation.

    Raises:
        CheckpointError: On every rank, if the run cannot continue from the latest
            checkpoint, or not write any.
        RankMismatchError: On every rank, if configurations differ.
        DataError: If a data file is missing or malformed.
        ValueError: If the model or another setting is unknown.
    """
    check_ranks(config)
    checkpoints = CheckpointManager(config, DataParallelRules(config), signals)
    with closed_on_error(checkpoints):
        task = DataParallelTask(config, checkpoints.manifest)
        return Trainer(config, task, checkpoints, on_progress)

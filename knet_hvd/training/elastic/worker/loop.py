"""The worker of an elastic job: train, and when workers are lost or added, form the group again.

Horovod's own decorator for this, ``hvd.elastic.run``, starts a service in each worker
that listens on all addresses and unpickles what it receives. The loop here does the
same without: a worker asks for news (``HostWatch``), and state crosses as tensors.
"""

import logging
import os
from collections.abc import Callable
from typing import Any

import horovod.torch as hvd
from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

from knet_hvd.errors import KnetError
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.run import check_ranks
from knet_hvd.training.data_parallel.task import DataParallelTask
from knet_hvd.training.elastic import LAUNCHED_BY
from knet_hvd.training.elastic.worker.commit_memory import CommitMemory
from knet_hvd.training.elastic.worker.commits import ElasticCommits
from knet_hvd.training.elastic.worker.host_watch import HostWatch
from knet_hvd.training.loop.trainer import Trainer

_logger = logging.getLogger("knet_hvd")


def check_launcher(config: TrainingConfig) -> None:
    """Raise unless the job was started as its configuration says.

    Args:
        config: The job's.

    Raises:
        KnetError: Says how to start it.
    """
    launched = LAUNCHED_BY in os.environ
    if config.elastic and not launched:
        raise KnetError(
            "elastic: start the job with `python -m knet_hvd elastic --min-np 2 "
            "--host-discovery-script ./hosts.sh -- python jobs/train_data_parallel.py "
            "--elastic ...`. mpirun ends all ranks when one is lost, and the servers "
            "of horovodrun listen on all addresses and unpickle what they receive"
        )
    if launched and not config.elastic:
        raise KnetError(
            "python -m knet_hvd elastic started this job: give it --elastic, or start "
            "it with mpirun"
        )


def train_elastically(
    config: TrainingConfig, on_progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Train to the end on the workers that there are; Horovod is initialized.

    Everything that depends on the number of ranks is built again whenever they meet:
    optimizer, hooks, buckets, exchange and the shares of the data.

    Args:
        config: The same on every rank.
        on_progress: Called after each step, each evaluation and each meeting.

    Returns:
        The summary, the same on every rank. Its rate is that since the last meeting.

    Raises:
        KnetError: If training diverged, or the launcher has ended.
        ValueError: If a setting is unknown.
    """
    memory = CommitMemory()
    watch = HostWatch.of_environment()
    try:
        while True:
            try:
                on_progress()
                trainer = open_elastic_trainer(config, memory, watch, on_progress)
                _announce(memory, trainer)
                summary = trainer.train()
                return {**summary, **memory.facts()}
            except HorovodInternalError:
                reason = "a worker is lost"
            except HostsUpdatedInterrupt:
                reason = "hosts came or went"
            _logger.warning(
                "rank %d, step %d: %s, forming the group again",
                hvd.rank(),
                memory.steps_made,
                reason,
            )
            hvd.shutdown()
            hvd.init()
    finally:
        watch.close()


def open_elastic_trainer(
    config: TrainingConfig,
    memory: CommitMemory,
    watch: HostWatch,
    on_progress: Callable[[], None] = lambda: None,
) -> Trainer[DataParallelTask]:
    """Build this worker's part of a run that continues from what the workers keep in memory.

    Args:
        config: The same on every rank.
        memory: Of this worker.
        watch: Tells when hosts came or went.
        on_progress: Called after each step and each evaluation.
    """
    check_ranks(config)
    commits = ElasticCommits(config, memory, watch)
    return Trainer(config, DataParallelTask(config), commits, on_progress)


def _announce(memory: CommitMemory, trainer: Trainer[DataParallelTask]) -> None:
    if hvd.rank() == 0 and len(memory.meetings) > 1:
        _logger.warning(
            "continuing with %d workers after step %d", hvd.size(), trainer.resumed_step
        )

"""Workers of an elastic job that have met come to one state."""

import time
from typing import Any

import horovod.torch as hvd
import pytest
import torch
from horovod.common.exceptions import HostsUpdatedInterrupt

from knet_hvd import TernaryConfig
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.elastic.launcher.rendezvous import BoundRendezvous
from knet_hvd.training.elastic.worker.commit_memory import NO_STEP, Commit, CommitMemory
from knet_hvd.training.elastic.worker.host_watch import HostWatch
from knet_hvd.training.elastic.worker.loop import open_elastic_trainer
from knet_hvd.training.elastic.worker.state_sync import agree_on_state
from knet_hvd.training.state.resume_point import ResumePoint
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import needs_ranks
from tests.rendezvous import rendezvous

__all__ = ["rendezvous"]


def residual(rank: int) -> torch.Tensor:
    return torch.full((3, 2), 1.0 + rank)


def commit(step: int, rank: int) -> Commit:
    compression = {"step": step, "residuals": {"w": residual(rank)}}
    shard = {"compression": compression, "model": {"w": torch.full((2,), step + 0.5)}}
    return Commit(ResumePoint(step, epoch=1, samples=6, remaining=0.25), shard)


def test_in_the_beginning_nobody_has_a_state() -> None:
    memory = CommitMemory()
    assert agree_on_state(memory) is None
    assert memory.facts()["sizes"] == [hvd.size()]
    assert memory.facts()["steps_lost"] == 0


@needs_ranks(2)
def test_all_go_back_to_the_commit_that_all_have() -> None:
    """Rank 0 is new; the last rank was a commit behind when a worker was lost."""
    memory = CommitMemory()
    agree_on_state(memory)
    last = hvd.size() - 1
    if hvd.rank() > 0:
        memory.add(commit(20, hvd.rank()))
        memory.steps_made = 37
        if hvd.rank() < last:
            memory.add(commit(40, hvd.rank()))
            memory.steps_made = 41
    agreed = agree_on_state(memory)
    assert agreed is not None
    assert agreed.resume_point == ResumePoint(20, epoch=1, samples=6, remaining=0.25)
    assert torch.equal(agreed.shard["model"]["w"], torch.full((2,), 20.5))
    mean = sum(1.0 + rank for rank in range(1, hvd.size())) / last
    own = agreed.shard["compression"]["residuals"]["w"]
    assert torch.equal(own, torch.full((3, 2), mean))
    assert memory.latest == (20 if hvd.rank() else NO_STEP)
    facts = memory.facts()
    assert facts["reset_steps"] == [20]
    assert facts["steps_lost"] == (41 if last > 1 else 37) - 20


@pytest.mark.parametrize(
    ("compression", "exchange"), [("none", "auto"), ("ternary", "auto"), ("ternary", "allreduce")]
)
def test_workers_meet_anew_when_one_of_them_hears_of_hosts(
    rendezvous: BoundRendezvous, compression: Any, exchange: Any
) -> None:
    """Everything is rebuilt from the commit, and the run ends as if it had not."""
    config = TrainingConfig(
        **{"model": "mlp", "compression": compression, "exchange": exchange},
        **{"batch_size": 120 // hvd.size(), "epochs": 4, "learning_rate_schedule": "polynomial"},
        **{"ternary": TernaryConfig(error_feedback=True), "learning_rate": 0.05},
        **{"elastic": True, "commit_every": 4},
    )
    watch = HostWatch(rendezvous.secret_address)
    memory = CommitMemory()
    trainer = open_elastic_trainer(config, memory, watch)
    num_steps = trainer.num_steps
    if hvd.rank() == hvd.size() - 1:
        rendezvous.announce()
        while not watch.has_changed:
            time.sleep(0.01)
    with pytest.raises(HostsUpdatedInterrupt):
        trainer.train()
    assert memory.steps_made == memory.latest == 4
    left = {name: p.detach().clone() for name, p in trainer.task.model.named_parameters()}
    again = open_elastic_trainer(config, memory, watch)
    for name, parameter in again.task.model.named_parameters():
        assert torch.equal(parameter, left[name])
    assert again.resumed_step == 4
    assert again.num_steps == num_steps
    summary = {**again.train(), **memory.facts()}
    watch.close()
    assert summary["steps"] == num_steps
    assert (summary["sizes"], summary["steps_lost"]) == ([hvd.size()] * 2, 0)
    assert summary["test_accuracy"] > 0.6
    assert 0 < again.task.optimizer.param_groups[0]["lr"] < 0.2 * config.learning_rate
    assert_same_on_all_ranks(p.detach() for p in again.task.model.parameters())

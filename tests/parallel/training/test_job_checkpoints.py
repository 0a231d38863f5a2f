"""The data-parallel job: continuing from a checkpoint is the same as not stopping."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import pytest
import torch

from knet_hvd import TernaryConfig
from knet_hvd.checkpoint import CheckpointStore, StopSignals
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.errors import CheckpointError, PreemptionError
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.run import open_trainer
from knet_hvd.training.data_parallel.state import merge_compression_states
from knet_hvd.training.data_parallel.task import DataParallelTask
from knet_hvd.training.loop.trainer import Trainer
from tests.parallel.full_disk import files_of_at_most
from tests.parallel.helpers import needs_ranks

TOTAL_BATCH = 240  # five steps an epoch of the digits on 1 to 4 ranks
FEEDBACK = TernaryConfig(error_feedback=True)
CASES: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd"},
    "momentum, feedback": {"ternary": FEEDBACK, "exchange": "alltoall"},
    "adam, feedback, average": {
        **{"optimizer": "adam", "ternary": FEEDBACK, "average_decay": 0.9},
        **{"learning_rate": 0.001, "exchange": "allgather"},
    },
    "augment, schedule": {"augment": True, "learning_rate_schedule": "polynomial"},
    "dropout, batch norm": {"model": "alexnet", "width": 0.05, "ternary": FEEDBACK},
}


def gather_texts(text: str, what: str) -> list[str]:
    return CollectiveRanks(HorovodCollectives()).gather_text(text, what)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One folder for all ranks, whose own temporary folders differ."""
    return Path(gather_texts(str(tmp_path), "tmp_path")[0]) / "checkpoints"


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    with StopSignals() as caught:
        yield caught


def make_config(folder: Path | None, **settings: Any) -> TrainingConfig:
    defaults = {"model": "mlp", "batch_size": TOTAL_BATCH // hvd.size(), "epochs": 2}
    return TrainingConfig(
        **{**defaults, "checkpoint_every": 3, "checkpoint_dir": folder, **settings}
    )


def at_step(trainer: Trainer[DataParallelTask], step: int, act: Callable[[], None]) -> None:
    """Have something happen on this rank while a step is being made."""
    make_step = trainer.task.step

    def wrapped(number: int, *batch: Any) -> None:
        make_step(number, *batch)
        if number == step:
            act()

    trainer.task.step = wrapped  # type: ignore[method-assign]


def preempt(config: TrainingConfig, signals: StopSignals, step: int) -> None:
    """Run until the last rank alone, in that step, is told to stop."""
    trainer = open_trainer(config, signals)
    if hvd.rank() == hvd.size() - 1:
        at_step(trainer, step, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(PreemptionError, match=f"SIGUSR1 after step {step + 2}, saved"):
        trainer.train()
    trainer._checkpoints.close()
    signals.received = ""


def train(config: TrainingConfig) -> tuple[dict[str, Any], Trainer[DataParallelTask]]:
    trainer = open_trainer(config)
    summary = trainer.train()
    trainer.close()
    return summary, trainer


def check_resumed(folder: Path, signals: StopSignals, settings: dict[str, Any], step: int) -> None:
    straight, straight_trainer = train(make_config(None, **settings))
    preempt(make_config(folder, **settings), signals, step)
    torch.manual_seed(999)  # a new process would not have it either
    resumed, trainer = train(make_config(folder, resume="must", **settings))
    assert resumed["resumed_step"] == step + 2
    assert straight["steps"] == resumed["steps"] == 10
    for key in ("parameters_sha256", "test_accuracy", "train_loss"):
        assert straight[key] == resumed[key], key
    expected = straight_trainer.task.model.state_dict()
    for name, value in trainer.task.model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert torch.equal(trainer.task.state.capture(10)["random_state"], torch.get_rng_state())


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_ends_in_the_same_bits(
    case: str, folder: Path, signals: StopSignals
) -> None:
    check_resumed(folder, signals, CASES[case], step=5)


@pytest.mark.parametrize("step", [0, 1, 3])
def test_wherever_it_was_stopped(step: int, folder: Path, signals: StopSignals) -> None:
    """After the first steps, with a checkpoint, and at the end of an epoch."""
    check_resumed(folder, signals, CASES["momentum, feedback"], step)


@pytest.mark.skipif(hvd.size() > 2, reason="repeatable on 2 ranks, see sharp_bits.md")
@pytest.mark.parametrize("compression", ["ternary", "none", "fp16"])
def test_horovods_own_optimizer(compression: str, folder: Path, signals: StopSignals) -> None:
    exchange = {"ternary": "allreduce"}.get(compression, "auto")
    settings = {"compression": compression, "exchange": exchange, "ternary": FEEDBACK}
    check_resumed(folder, signals, settings, step=5)


def test_auto_keeps_to_what_it_chose(folder: Path, signals: StopSignals) -> None:
    config = make_config(folder, compression="auto")
    trainer = open_trainer(config, signals)
    advice = trainer.task.advice
    at_step(trainer, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(PreemptionError, match="SIGTERM"):
        trainer.train()
    trainer._checkpoints.close()
    resumed = open_trainer(config)
    assert resumed.task.advice == advice
    assert type(resumed.task.optimizer).__mro__[1] is type(trainer.task.optimizer).__mro__[1]
    resumed._checkpoints.close()


def test_the_last_ones_are_kept_and_the_last_step_is_one(folder: Path) -> None:
    train(make_config(folder, keep_checkpoints=2))
    steps = CheckpointStore(folder).steps()
    assert steps[0] == 10
    # One that was due while the one before was still being written comes later.
    assert len(steps) == 2
    names = {entry.name for entry in folder.iterdir()}
    assert names == {".lock", *(f"step-{step:09d}" for step in steps)}
    again, _ = train(make_config(folder, keep_checkpoints=2))
    assert (again["resumed_step"], again["steps"]) == (10, 10)


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("what", ["manifest.json", "the last shard"])
def test_all_ranks_take_the_last_good_one(
    what: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight, _ = train(make_config(folder))
    steps = CheckpointStore(folder).steps()
    gather_texts("", "seen")
    if hvd.rank() == 0:
        name = what
        if what == "the last shard":  # which only the last rank reads
            name = f"shard-{hvd.size() - 1:05d}.safetensors"
        damage(folder / "step-000000010" / name)
    gather_texts("", "damaged")
    resumed, _ = train(make_config(folder))
    assert resumed["resumed_step"] == steps[1]
    assert resumed["parameters_sha256"] == straight["parameters_sha256"]
    if hvd.rank() == 0:
        assert "damaged checkpoint: " in caplog.text
        assert (folder / "step-000000010.damaged").is_dir()


def test_no_good_one_is_an_error_and_not_a_new_beginning(folder: Path) -> None:
    train(make_config(folder, epochs=1, checkpoint_every=100))
    gather_texts("", "trained")
    if hvd.rank() == 0:
        damage(folder / "step-000000005" / "shard-00000.safetensors")
    gather_texts("", "damaged")
    with pytest.raises(CheckpointError, match=r"no checkpoint .* is good: .*SHA-256"):
        open_trainer(make_config(folder))
    gather_texts("", "refused")
    assert (folder / "step-000000005").is_dir()


def test_another_configuration_names_what_differs(folder: Path) -> None:
    train(make_config(folder, epochs=1))
    changed = {"learning_rate": 0.5, "ternary": FEEDBACK, "log_every": 3, "epochs": 4}
    with pytest.raises(CheckpointError) as error:
        open_trainer(make_config(folder, **changed))
    assert "learning_rate: 0.01 there, 0.5 here" in str(error.value)
    assert "ternary.error_feedback: False there, True here" in str(error.value)
    assert "log_every" not in str(error.value)
    assert "epochs" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"240 in all.*keep it, with --batch"):
        open_trainer(make_config(folder, batch_size=7))
    with pytest.raises(CheckpointError, match="is of step 5, and the run is to have 4"):
        open_trainer(make_config(folder, max_steps=4))
    with pytest.raises(CheckpointError, match="resume is never"):
        open_trainer(make_config(folder, resume="never"))


def test_a_schedule_that_would_change(folder: Path) -> None:
    train(make_config(folder, epochs=1, learning_rate_schedule="polynomial"))
    with pytest.raises(CheckpointError, match=r"run of 5 steps; .* to have 10"):
        open_trainer(make_config(folder, epochs=2, learning_rate_schedule="polynomial"))


def test_nothing_to_go_on_from(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="resume must: there is no checkpoint"):
        open_trainer(make_config(folder, resume="must"))


def test_a_second_job_in_the_folder(folder: Path) -> None:
    first = open_trainer(make_config(folder, epochs=1))
    with pytest.raises(CheckpointError, match=r"in use by another job .*process"):
        open_trainer(make_config(folder, epochs=1))
    first.train()
    first.close()
    assert train(make_config(folder, epochs=1))[0]["resumed_step"] == 5


def test_a_folder_that_is_not_the_same_on_all_hosts(tmp_path: Path) -> None:
    if hvd.size() == 1:
        pytest.skip("one rank has one folder")
    # The same path, as the ranks see it, leads elsewhere: so it is without a shared
    # file system.
    os.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"all hosts share|cannot be written"):
        open_trainer(make_config(Path("checkpoints")))


@pytest.mark.parametrize("failing", [0, hvd.size() - 1])
def test_a_disk_that_is_full_on_one_rank(
    failing: int, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    straight, _ = train(make_config(None, ternary=FEEDBACK))
    train(make_config(folder, ternary=FEEDBACK, epochs=1))
    before = CheckpointStore(folder).steps()
    config = make_config(folder, ternary=FEEDBACK)
    trainer = open_trainer(config)
    with files_of_at_most(10_000) if hvd.rank() == failing else nullcontext():
        summary = trainer.train()
        with pytest.raises(CheckpointError, match="step-000000010 could not be writ"):
            trainer.close()
    assert summary["parameters_sha256"] == straight["parameters_sha256"]
    if hvd.rank() == 0:
        text = f"(rank {failing}: File too large); the latest is of step 5"
        assert text in caplog.text
    assert CheckpointStore(folder).steps() == before
    gather_texts("", "failed")
    again, _ = train(config)
    assert again["resumed_step"] == 5
    assert again["parameters_sha256"] == straight["parameters_sha256"]
    assert CheckpointStore(folder).steps()[0] == 10
    assert not list(folder.glob("*.partial"))


def test_residuals_on_another_number_of_ranks_owe_the_same() -> None:
    residuals = [torch.randn(4, 5) for _ in range(3)]
    states = [{"step": 4, "residuals": {"w": each}} for each in residuals]
    states[1]["residuals"] = {"w": residuals[1], "v": torch.ones(2)}
    merged = merge_compression_states(states, step=9)
    assert merged["step"] == 9
    mean = torch.stack(residuals).double().mean(0)
    torch.testing.assert_close(merged["residuals"]["w"], mean.float())
    assert merged["residuals"]["v"].tolist() == pytest.approx([1 / 3, 1 / 3])
    assert states[0] == {"step": 4, "residuals": {"w": residuals[0]}}


@needs_ranks(2)
def test_ranks_that_are_told_to_stop_at_different_moments(
    folder: Path, signals: StopSignals
) -> None:
    trainer = open_trainer(make_config(folder), signals)
    steps: list[int] = []
    at_step(trainer, 3 + hvd.rank(), lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(PreemptionError) as stop:
        trainer.train()
    trainer._checkpoints.close()
    steps.append(CheckpointStore(folder).steps()[0])
    assert gather_texts(str(stop.value), "stops") == [str(stop.value)] * hvd.size()
    assert steps == [5]

"""The pipeline job: continuing from a checkpoint is the same as not stopping."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from knet_hvd import TernaryConfig
from knet_hvd.checkpoint import CheckpointStore, StopSignals
from knet_hvd.checkpoint.export import model_state
from knet_hvd.comm import World
from knet_hvd.errors import CheckpointError, KnetError, PreemptionError
from knet_hvd.models import build_model
from knet_hvd.pipeline.decouplers import Backprop, Decoupler, Delayed, Local, Synthetic
from knet_hvd.pipeline.decouplers.replayed import ReplayedGradient
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.training.loop.trainer import Trainer
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from knet_hvd.training.pipeline.task import PipelineTask
from tests.parallel.full_disk import files_of_at_most
from tests.parallel.mpi import needs_mpi_ranks, world

__all__ = ["world"]
BATCH = 200  # seven steps an epoch of the digits, whatever the ranks
FEEDBACK = TernaryConfig(error_feedback=True)
SMALL = {"hidden_layers": 1, "hidden_units": 32, "kernel_size": 3}
STASHED = Delayed(recompute=False)
STASHED_PREDICTED = Delayed(recompute=False, predict_weights=True)
CASES: dict[str, dict[str, Any]] = {
    "backprop": {"decoupler": Backprop(), "microbatches": 4},
    "local": {"decoupler": Local(), "learning_rate_schedule": "cosine"},
    "delayed, average": {"decoupler": Delayed(), "average_decay": 0.9, "inputs": "unit"},
    "synthetic": {"decoupler": Synthetic(**SMALL), "optimizer": "momentum"},
    # batch normalization and convolutions, whose inputs have a layout to keep
    "images": {"decoupler": Delayed(), "model": "vgg16", "width": 0.04},
    "dropout": {"decoupler": Local(), "model": "alexnet", "width": 0.05},
    "true-targets": {
        "decoupler": Synthetic(**SMALL, targets="true"),
        "model": "alexnet",
        "width": 0.05,
    },
    "corrected": {
        "decoupler": Synthetic(**SMALL, targets="corrected"),
        "model": "mnist8",
        "width": 0.2,
    },
    # graphs under way, which a checkpoint cannot hold
    "stashed": {"decoupler": Delayed(recompute=False, max_delay=3)},
    "predicted": {"decoupler": Delayed(predict_weights=True, max_delay=3)},
    "stashed-predicted": {
        "decoupler": Delayed(recompute=False, predict_weights=True, max_delay=3),
        "optimizer": "momentum",
    },
    # some microbatches of a step have come back, others not
    "microbatches": {"decoupler": Delayed(), "microbatches": 4, "optimizer": "sgd"},
    "microbatches-stashed": {
        "decoupler": STASHED_PREDICTED,
        "microbatches": 2,
        "model": "vgg16",
        "width": 0.04,
    },
    "stashed-images": {"decoupler": STASHED, "model": "vgg16", "width": 0.04},
    "stashed-dropout": {"decoupler": STASHED, "model": "alexnet", "width": 0.05},
}


@pytest.fixture
def folder(world: World, tmp_path: Path) -> Path:
    """One folder for all ranks, whose own temporary folders differ."""
    return Path(world.gather_text(str(tmp_path), "tmp_path")[0]) / "checkpoints"


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    with StopSignals() as caught:
        yield caught


@pytest.fixture(autouse=True)
def determinism_ends() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def make_config(folder: Path | None, **settings: Any) -> PipelineConfig:
    defaults = {"width": 0.25, "epochs": 2, "batch_size": BATCH}
    saves = {"checkpoint_every": 3, "checkpoint_dir": folder}
    return PipelineConfig(**{**defaults, "deterministic": True, **saves, **settings})


def train(config: PipelineConfig, world: World) -> dict[str, Any]:
    trainer = open_trainer(config, world)
    summary = trainer.train()
    trainer.close()
    return summary


def at_step(trainer: Trainer[PipelineTask], step: int, act: Callable[[], None]) -> None:
    """Have something happen on this rank while a step is being made."""
    make_step = trainer.task.runner.step

    def wrapped(number: int, *batch: Any) -> None:
        make_step(number, *batch)
        if number == step:
            act()

    trainer.task.runner.step = wrapped  # type: ignore[method-assign]


def preempt(config: PipelineConfig, world: World, signals: StopSignals, step: int) -> int:
    """Run until the last rank alone, in that step, is told to stop; return where."""
    trainer = open_trainer(config, world, signals)
    if world.rank == world.size - 1:
        at_step(trainer, step, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    with pytest.raises(PreemptionError, match=r"stopped by SIGUSR1 after step") as stop:
        trainer.train()
    trainer._checkpoints.close()
    signals.received = ""
    assert len(set(world.gather_text(str(stop.value), "stops"))) == 1
    assert config.checkpoint_dir is not None
    return CheckpointStore(config.checkpoint_dir).steps()[0]


def results(summary: dict[str, Any]) -> list[Any]:
    stages = [stage["parameters_sha256"] for stage in summary["stages"]]
    return [*stages, *(summary[key] for key in ("test_accuracy", "train_loss"))]


def check_resumed(
    folder: Path, world: World, signals: StopSignals, step: int, **settings: Any
) -> None:
    straight = train(make_config(None, **settings), world)
    stopped = preempt(make_config(folder, **settings), world, signals, step)
    assert step < stopped < straight["steps"]
    torch.manual_seed(999)  # a new process would not have it either
    resumed = train(make_config(folder, resume="must", **settings), world)
    assert resumed["resumed_step"] == stopped
    assert resumed["steps"] == straight["steps"]
    assert results(resumed) == results(straight)


@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_stopped_ends_in_the_same_bits(
    case: str, folder: Path, world: World, signals: StopSignals
) -> None:
    small = {"max_steps": 14, "batch_size": 64} if "model" in CASES[case] else {}
    check_resumed(folder, world, signals, 3, **CASES[case] | small)


def test_gradients_that_come_when_they_come(
    folder: Path, world: World, signals: StopSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the same bits, but each gradient is learned from once, and in order."""
    taken: list[int] = []
    backward_late = ReplayedGradient.backward_late

    def watch(self: ReplayedGradient, stage: Stage, batch: Batch, gradient: Tensor) -> bool:
        taken.append(batch.step)
        return backward_late(self, stage, batch, gradient)

    monkeypatch.setattr(ReplayedGradient, "backward_late", watch)
    settings = {"decoupler": Delayed(), "deterministic": False, "checkpoint_every": 2}
    config = make_config(folder, **settings)
    stopped = preempt(config, world, signals, 3)
    summary = train(config, world)
    assert (summary["resumed_step"], summary["steps"]) == (stopped, 14)
    is_last = world.rank == world.size - 1
    assert taken == ([] if is_last else list(range(14)))


@needs_mpi_ranks(2)
@pytest.mark.parametrize(
    ("case", "compression"),
    [("backprop", "ternary"), ("delayed, average", "ternary"), ("synthetic", "none")],
)
def test_replicas_go_on_in_the_same_bits(
    case: str, compression: str, folder: Path, world: World, signals: StopSignals
) -> None:
    if world.size % 2:
        pytest.skip(f"{world.size} ranks cannot hold 2 replicas of each stage")
    settings = {"replicas": 2, "compression": compression, "ternary": FEEDBACK}
    sizes = {"width": 0.5, "batch_size": 100}
    check_resumed(folder, world, signals, 3, **CASES[case] | settings | sizes)
    store = CheckpointStore(folder)
    manifest = store.read_manifest(store.steps()[0])
    shards = [store.read_shard(manifest, place) for place in range(world.size)]
    assert [bool(shard.get("model")) for shard in shards] == [
        place % 2 == 0 for place in range(world.size)
    ]
    residuals = [shard["compression"][0].get("residuals") for shard in shards]
    assert all(residuals) == (compression == "ternary")


@pytest.mark.parametrize("decoupler", [Local(), Delayed()], ids=str)
def test_the_last_checkpoint_holds_the_whole_final_model(
    decoupler: Decoupler, folder: Path, world: World
) -> None:
    config = make_config(folder, decoupler=decoupler, max_steps=9)
    trainer = open_trainer(config, world)
    trainer.train()
    trainer.close()
    assert CheckpointStore(folder).steps()[0] == 9
    state = model_state(folder)
    model = build_model("mnist4", in_shape=(1, 8, 8), num_classes=10, width=0.25)
    model.load_state_dict(state)
    assert list(state) == list(model.state_dict())
    for name, value in trainer.task.stage.blocks.state_dict().items():
        assert torch.equal(value, state[name]), name
    again = train(config, world)  # nothing is left to do but to evaluate
    assert again["resumed_step"] == again["steps"] == 9


@pytest.mark.parametrize("cut_between", ["blocks", "layers"])
def test_measured_stages_stay_where_they_were(
    folder: Path,
    world: World,
    signals: StopSignals,
    monkeypatch: pytest.MonkeyPatch,
    cut_between: Any,
) -> None:
    config = make_config(folder, placement="measured", model="mnist8", cut_between=cut_between)
    trainer = open_trainer(config, world)
    plan = trainer.task.plan
    trainer.train()
    trainer.close()
    monkeypatch.setattr("knet_hvd.pipeline.api.placing.measure_costs", pytest.fail)
    again = open_trainer(replace(config, epochs=3), world)
    assert (again.task.plan.cuts, again.task.plan.order) == (plan.cuts, plan.order)
    assert again.train()["resumed_step"] == 14
    again.close()


@needs_mpi_ranks(2)
def test_other_stages_cuts_or_decouplers_are_refused(folder: Path, world: World) -> None:
    train(make_config(folder, epochs=1, model="mnist8"), world)
    cuts = tuple(range(2, world.size + 1))
    there = {2: "4", 3: "3 6", 4: "2 4 6"}[world.size]
    here = " ".join(map(str, cuts))
    with pytest.raises(CheckpointError, match=f"cuts: {there} there, {here} here"):
        train(make_config(folder, model="mnist8", cuts=cuts), world)
    with pytest.raises(CheckpointError) as error:
        train(make_config(folder, model="mnist8", decoupler=Backprop()), world)
    assert "decoupler: local there, backprop here" in str(error.value)
    with pytest.raises(CheckpointError, match="is of step 7, and the run is to have 5"):
        train(make_config(folder, model="mnist8", max_steps=5), world)
    if world.size % 2 == 0:
        message = f"stages: {world.size} there, {world.size // 2} here"
        with pytest.raises(CheckpointError, match=message):
            train(make_config(folder, model="mnist8", replicas=2), world)


@pytest.mark.parametrize("damaged", ["manifest.json", "the last shard"])
def test_a_damaged_one_is_named_and_the_one_before_taken(
    damaged: str, folder: Path, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    straight = train(make_config(folder), world)
    steps = CheckpointStore(folder).steps()
    world.gather_text("", "seen")
    if world.rank == 0:
        name = damaged
        if damaged == "the last shard":  # which only the last rank reads
            name = f"shard-{world.size - 1:05d}.safetensors"
        file = folder / "step-000000014" / name
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    world.gather_text("", "damage")
    resumed = train(make_config(folder), world)
    assert resumed["resumed_step"] == steps[1]
    assert results(resumed) == results(straight)
    if world.rank == 0:
        assert "damaged checkpoint: " in caplog.text
        assert (folder / "step-000000014.damaged").is_dir()


def test_a_second_job_in_the_folder(folder: Path, world: World) -> None:
    first = open_trainer(make_config(folder, epochs=1), world)
    with pytest.raises(CheckpointError, match=r"in use by another job .*process"):
        open_trainer(make_config(folder, epochs=1), world)
    first.train()
    first.close()


def test_a_disk_that_is_full_on_one_rank(folder: Path, world: World) -> None:
    straight = train(make_config(None), world)
    trainer = open_trainer(make_config(folder), world)
    failing = world.size - 1
    with files_of_at_most(1000) if world.rank == failing else nullcontext():
        summary = trainer.train()
        message = rf"step-000000014 could not be written \(rank {failing}: File too l"
        with pytest.raises(CheckpointError, match=message):
            trainer.close()
    assert results(summary) == results(straight)
    assert CheckpointStore(folder).steps() == []


def test_what_has_diverged_is_not_saved(folder: Path, world: World) -> None:
    """Every rank says so, whichever stage it is."""
    trainer = open_trainer(make_config(folder), world)

    def spoil() -> None:
        next(trainer.task.stage.blocks.parameters()).data.fill_(float("nan"))

    if world.rank == world.size - 1:
        at_step(trainer, 2, spoil)
    message = f"diverged before step 3: .* of stage {world.size - 1} is not finite"
    with pytest.raises(KnetError, match=message):
        trainer.train()
    trainer._checkpoints.close()
    trainer.task.links.close()
    assert CheckpointStore(folder).steps() == []

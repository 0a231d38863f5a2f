"""Decoupled training over any number of ranks."""

import time
from typing import Any

import pytest
import torch
from torch import Tensor

from knet_hvd.comm import World
from knet_hvd.errors import RankMismatchError
from knet_hvd.pipeline.decouplers import Backprop, Conditioned, Delayed, Local, Synthetic
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.training.loop.trainer import Trainer
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from knet_hvd.training.pipeline.task import PipelineTask
from tests.parallel.mpi import needs_mpi_ranks, world

__all__ = ["world"]
SMALL = {"hidden_layers": 1, "hidden_units": 64, "kernel_size": 3}
STASHED_PREDICTED = Delayed(recompute=False, predict_weights=True)
CASES: dict[str, dict[str, Any]] = {
    "synthetic": {"decoupler": Synthetic(**SMALL)},
    "conditioned": {"decoupler": Conditioned(**SMALL)},
    "local": {"decoupler": Local()},
    "delayed": {"decoupler": Delayed()},
    "predicted": {"decoupler": Delayed(predict_weights=True)},
    "stashed": {"decoupler": Delayed(recompute=False)},
    "stashed-predicted": {"decoupler": STASHED_PREDICTED},
    "microbatches": {"decoupler": STASHED_PREDICTED, "microbatches": 4},
    "true": {"decoupler": Synthetic(**SMALL, targets="true")},
    "corrected": {"decoupler": Synthetic(**SMALL, targets="corrected")},
}


def make_config(case: str, **settings: Any) -> PipelineConfig:
    defaults = {"width": 0.5, "epochs": 3, "batch_size": 32}
    return PipelineConfig(**{**defaults, **CASES[case], **settings})


def train(world: World, case: str, **settings: Any) -> tuple[Trainer[PipelineTask], dict[str, Any]]:
    trainer = open_trainer(make_config(case, **settings), world)
    return trainer, trainer.train()


def digests(summary: dict[str, Any]) -> list[str]:
    return [stage["parameters_sha256"] for stage in summary["stages"]]


@pytest.mark.parametrize("case", CASES)
def test_deterministic_runs_are_the_same_bit_for_bit(world: World, case: str) -> None:
    settings = {"deterministic": True, "max_steps": 60}
    try:
        trainer, first = train(world, case, **settings)
        # Ranks at other speeds: what depends on time would come out otherwise.
        again = open_trainer(make_config(case, **settings), world)
        step = again.task.runner.step

        def slow_step(number: int, *batch: Any) -> None:
            if (number + world.rank) % 7 == 0:
                time.sleep(0.02)
            step(number, *batch)

        again.task.runner.step = slow_step
        second = again.train()
    finally:
        torch.use_deterministic_algorithms(False)
    assert digests(first) == digests(second)
    assert first["test_accuracy"] == second["test_accuracy"]
    assert trainer.task.stage.blocks.training


@pytest.mark.parametrize("model", ["mnist4", "mnist8"])
@pytest.mark.parametrize("case", CASES)
def test_it_learns(world: World, case: str, model: str) -> None:
    # Deterministic: how late gradients come, and so the result, must not hang on load.
    settings = {"model": model, "deterministic": True}
    try:
        _, summary = train(world, case, epochs=6, **settings)
    finally:
        torch.use_deterministic_algorithms(False)
    # 270 steps: synthesizers begin at zero, and a chain of them learns one by one.
    least = 0.8
    if case == "corrected":
        least = 0.7
    elif case == "true" and model == "mnist8":
        least = 0.6  # no synthesizer waits until the next one has learned
    elif case in ("synthetic", "conditioned"):
        least = {"mnist4": 0.7, "mnist8": 0.2}[model]
    assert summary["test_accuracy"] > least, summary
    assert summary["train_accuracy"] > least
    assert len(summary["stages"]) == world.size
    if world.size > 1 and case in ("synthetic", "conditioned", "true"):
        assert set(summary["stages"][0]["metrics"]) == {
            "cosine_similarity",
            "lr_scale",
            "norm_ratio",
            "synthesizer_loss",
        }
        assert summary["stages"][0]["decoupler_parameters"] > 0


def test_predsim_learns(world: World) -> None:
    _, summary = train(world, "local", decoupler=Local(loss="predsim"))
    assert summary["test_accuracy"] > 0.8


@needs_mpi_ranks(2)
@pytest.mark.parametrize("case", ["synthetic", "local", "delayed"])
def test_bytes_are_those_of_the_frames(world: World, case: str) -> None:
    trainer, summary = train(world, case, max_steps=30, epochs=1)
    link = trainer.task.links.outputs or trainer.task.links.inputs
    assert link is not None
    if world.size == 2:
        frames = 1 if case == "local" else 2
        assert summary["bytes_per_step"] == frames * link.frame_bytes
    _, halved = train(
        world,
        case,
        max_steps=60,
        epochs=2,
        activation_encodings=("bf16",),
        gradient_encodings=("bf16",),
    )
    assert halved["bytes_per_step"] < 0.52 * summary["bytes_per_step"]
    assert halved["test_accuracy"] > 0.2


@needs_mpi_ranks(2)
@pytest.mark.parametrize("case", ["synthetic", "delayed", "stashed", "local"])
def test_gradients_are_never_older_than_the_bound(world: World, case: str) -> None:
    trainer = open_trainer(make_config(case, max_steps=60), world)
    runner, seen = trainer.task.runner, []
    step = runner.step

    def watch(number: int, *batch: Any) -> None:
        if trainer.task.stage.is_last and number == 5:
            time.sleep(1.0)  # the others can run ahead, but not without bound
        step(number, *batch)
        seen.append(runner.staleness)

    runner.step = watch
    trainer.train()
    later = world.size - 1 - world.rank
    late = later + 1 if later else 0
    bounds = {"synthetic": 4, "delayed": late, "stashed": late, "local": 0}
    bound = bounds[case]
    assert max(seen) <= bound
    if trainer.task.stage.is_first and case == "synthetic":
        assert world.waiter.idle_s > 0.5, "it did not wait"


@needs_mpi_ranks(2)
@pytest.mark.parametrize("deterministic", [False, True])
def test_with_microbatches_gradients_are_one_update_old(world: World, deterministic: bool) -> None:
    config = make_config("delayed", microbatches=4, max_steps=40, deterministic=deterministic)
    trainer = open_trainer(config, world)
    source, updates = trainer.task.runner.gradient_source, 0
    began: list[int] = []
    ages: list[int] = []
    forward, update = source.forward, trainer.task.stage.update

    def note_forward(stage: Stage, batch: Batch) -> Tensor:
        if batch.microbatch == 0:
            began.append(updates)
        return forward(stage, batch)

    def note_update(lr_scale: float = 1.0) -> None:
        nonlocal updates
        ages.append(updates - began[updates])
        updates += 1
        update(lr_scale)

    source.forward, trainer.task.stage.update = note_forward, note_update
    try:
        trainer.train()
    finally:
        torch.use_deterministic_algorithms(False)
    assert updates == 40, "an update a step"
    assert max(ages) <= (0 if trainer.task.stage.is_last else 1)
    if deterministic and not trainer.task.stage.is_last:
        assert ages[1:].count(1) > 30, "nothing overlapped"


def test_microbatches_on_one_rank_are_those_of_backpropagation(world: World) -> None:
    """The last stage has no late gradients, and a mean over all of them."""
    if world.size > 1:
        pytest.skip("one rank")
    settings = {"microbatches": 4, "max_steps": 40, "deterministic": True}
    try:
        _, late = train(world, "delayed", **settings)
        _, locked = train(world, "delayed", decoupler=Backprop(), **settings)
    finally:
        torch.use_deterministic_algorithms(False)
    assert digests(late) == digests(locked)


@needs_mpi_ranks(2)
def test_ranks_with_other_settings_or_cuts(world: World) -> None:
    seed = 7 if world.rank == 1 else 8
    with pytest.raises(RankMismatchError, match=f"seed: {seed} here"):
        train(world, "local", seed=seed)


def test_stages_and_ranks_that_do_not_fit(world: World) -> None:
    with pytest.raises(ValueError, match=f"as there are ranks, {world.size}, got 7"):
        train(world, "local", stages=7)

"""Replicas of the pipeline's stages: data parallelism within it."""

from dataclasses import replace

import pytest

from knet_hvd.comm import World
from knet_hvd.errors import KnetError
from knet_hvd.pipeline.decouplers import Backprop, Conditioned, Decoupler, Delayed, Local, Synthetic
from knet_hvd.training.loop.evaluation import evaluate
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from tests.parallel.mpi import needs_mpi_ranks, world
from tests.parallel.pipeline.test_backprop import mnist4_config, train_alone

__all__ = ["world"]
REPLICAS = 2


def even_ranks(world: World) -> None:
    if world.size % REPLICAS:
        pytest.skip(f"{world.size} ranks cannot hold {REPLICAS} replicas of each stage")


@needs_mpi_ranks(2)
@pytest.mark.parametrize(
    ("optimizer", "microbatches"), [("momentum", 1), ("adam", 1), ("momentum", 4)]
)
def test_float_gradients_give_the_weights_of_one_process(
    world: World, optimizer: str, microbatches: int
) -> None:
    even_ranks(world)
    config = mnist4_config(
        optimizer,
        decoupler=Backprop(),
        microbatches=microbatches,
        batch_size=16,
        replicas=REPLICAS,
        compression="none",
    )
    alone = replace(config, replicas=1, batch_size=16 * REPLICAS)
    expected = dict(train_alone(alone).named_parameters())
    trainer = open_trainer(config, world)
    summary = trainer.train()
    assert summary["replicas"] == REPLICAS
    assert summary["num_stages"] == world.size // REPLICAS
    for name, parameter in trainer.task.stage.blocks.named_parameters():
        difference = float((parameter.detach() - expected[name].detach()).abs().max())
        assert difference <= 1e-5, f"{name} differs by {difference}"


@needs_mpi_ranks(2)
@pytest.mark.parametrize("model", ["mnist4", "vgg16"])
@pytest.mark.parametrize(
    ("decoupler", "microbatches"),
    [
        *((kind(), 1) for kind in (Backprop, Synthetic, Conditioned, Local, Delayed)),
        (Delayed(recompute=False), 1),
        (Delayed(predict_weights=True), 1),
        (Delayed(), 2),
        (Synthetic(targets="true"), 1),
        (Synthetic(targets="corrected"), 1),
    ],
    ids=str,
)
def test_replicas_hold_the_same_bits(
    world: World, decoupler: Decoupler, microbatches: int, model: str
) -> None:
    """They are compared before every evaluation, here after each 3 of 9 steps."""
    even_ranks(world)
    config = PipelineConfig(
        model=model,
        width=0.07,
        decoupler=decoupler,
        epochs=3,
        batch_size=238,
        optimizer="momentum",
        replicas=REPLICAS,
        microbatches=microbatches,
    )
    trainer = open_trainer(config, world)
    summary = trainer.train()
    assert summary["steps"] == 9
    assert summary["gradient_compression_ratio"] > 1.2  # tiny: many float tensors
    own = trainer.task.stage.index
    hashes = world.gather_text(f"{own} {summary['stages'][own]['parameters_sha256']}", "hashes", 1)
    assert len(set(hashes)) == summary["num_stages"]


@needs_mpi_ranks(2)
def test_replicas_that_differ_are_found(world: World) -> None:
    even_ranks(world)
    config = PipelineConfig(width=0.07, epochs=1, batch_size=239, replicas=REPLICAS)
    trainer = open_trainer(config, world)
    if world.rank == world.size - 1:
        next(trainer.task.stage.blocks.parameters()).data.view(-1)[0] += 1
    if world.rank // REPLICAS == (world.size - 1) // REPLICAS:
        with pytest.raises(KnetError, match="replicas share"):
            evaluate(trainer.task, "test")
    trainer.task.replicas.close()


@needs_mpi_ranks(2)
def test_ternary_replicas_learn(world: World) -> None:
    even_ranks(world)
    config = PipelineConfig(epochs=6, batch_size=16, replicas=REPLICAS)
    summary = open_trainer(config, world).train()
    assert summary["test_accuracy"] > 0.85
    assert summary["gradient_compression_ratio"] > 8

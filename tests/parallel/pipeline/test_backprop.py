"""Locked backpropagation over any number of ranks computes what one process does."""

from typing import Any

import pytest
import torch
from torch import nn

from knet_hvd.comm import World
from knet_hvd.data import load_dataset
from knet_hvd.models import build_model
from knet_hvd.pipeline.decouplers import Backprop
from knet_hvd.pipeline.optimizers import make_optimizer
from knet_hvd.training.batches import BatchSource, expect_inputs
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from knet_hvd.training.state.resume_point import ResumePoint
from tests.parallel.mpi import world

__all__ = ["world"]
NUM_STEPS = 50


def train_alone(config: PipelineConfig) -> nn.Module:
    """Train the whole network in this process, without stages and microbatches."""
    dataset = load_dataset(config.data, config.data_dir)
    torch.manual_seed(config.seed)
    model = build_model(
        config.model,
        in_shape=dataset.in_shape,
        num_classes=dataset.num_classes,
        width=config.width,
        layerwise=config.layerwise,
    )
    optimizer = make_optimizer(model, config.optimizer, config.learning_rate)
    source = BatchSource(dataset, config, share=0, num_shares=1)
    step = 0
    for epoch in range(config.epochs):
        for inputs, targets in source.training(epoch, ResumePoint()):
            if step == NUM_STEPS:
                return model
            dataset.loss(model(expect_inputs(inputs)), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
            step += 1
    raise AssertionError(f"only {step} steps")


def mnist4_config(optimizer: str, **settings: Any) -> PipelineConfig:
    rate = 0.02 if optimizer == "momentum" else 0.001
    return PipelineConfig(
        model="mnist4",
        width=0.25,
        optimizer=optimizer,
        learning_rate=rate,
        epochs=3,
        max_steps=NUM_STEPS,
        **settings,
    )


@pytest.mark.parametrize(
    ("schedule", "microbatches"),
    [("sequential", 1), ("1f1b", 1), ("sequential", 4), ("1f1b", 2), ("1f1b", 8)],
)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_weights_after_50_steps(
    world: World, optimizer: str, schedule: str, microbatches: int
) -> None:
    decoupler = Backprop(schedule=schedule)
    config = mnist4_config(optimizer, decoupler=decoupler, microbatches=microbatches, batch_size=32)
    expected = dict(train_alone(config).named_parameters())
    trainer = open_trainer(config, world)
    summary = trainer.train()
    own = dict(trainer.task.stage.blocks.named_parameters())
    assert summary["num_parameters"] == sum(p.numel() for p in expected.values())
    for name, parameter in own.items():
        difference = float((parameter.detach() - expected[name].detach()).abs().max())
        assert difference <= 1e-6, f"{name} differs by {difference}"


@pytest.mark.parametrize("cut_between", ["blocks", "layers"])
def test_batch_normalization_and_lossless_zeros(world: World, cut_between: Any) -> None:
    """One microbatch: its statistics are those of the batch."""
    config = PipelineConfig(
        model="vgg16",
        width=0.07,
        decoupler=Backprop(),
        optimizer="sgd",
        epochs=2,
        max_steps=NUM_STEPS,
        batch_size=32,
        learning_rate=0.01,
        activation_encodings=("relu-sparse",),
        cut_between=cut_between,
    )
    expected = train_alone(config).state_dict()
    trainer = open_trainer(config, world)
    trainer.train()
    for name, value in trainer.task.stage.blocks.state_dict().items():
        difference = float((value - expected[name]).abs().max())
        assert difference <= 1e-6, f"{name} differs by {difference}"

"""The transformer on text, in stages: what a job trains that is no classifier of images."""

from pathlib import Path

import pytest
import torch

from knet_hvd.comm import World
from knet_hvd.data import load_dataset
from knet_hvd.data.text import read_text
from knet_hvd.pipeline.decouplers import Backprop
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from tests.parallel.mpi import world
from tests.parallel.pipeline.test_backprop import NUM_STEPS, train_alone

__all__ = ["world"]


def test_stages_of_a_transformer_compute_what_one_process_does(
    world: World, tmp_path: Path
) -> None:
    file = tmp_path / "some.txt"
    file.write_text(read_text()[:60_000])
    config = PipelineConfig(
        data="text",
        data_dir=file,
        model="transformer",
        width=0.2,
        decoupler=Backprop(),
        optimizer="momentum",
        learning_rate=0.02,
        batch_size=8,
        max_steps=NUM_STEPS,
    )
    alone = train_alone(config)
    expected = dict(alone.named_parameters())
    trainer = open_trainer(config, world)
    summary = trainer.train()
    for name, parameter in trainer.task.stage.blocks.named_parameters():
        difference = float((parameter.detach() - expected[name].detach()).abs().max())
        assert difference <= 1e-6, f"{name} differs by {difference}"
    text = load_dataset("text", file)
    rows = torch.arange(len(text.test))
    with torch.no_grad():
        loss = text.loss(alone(text.test.inputs[rows]), text.test.targets[rows])
    assert summary["test_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert 0 < summary["test_accuracy"] < 1

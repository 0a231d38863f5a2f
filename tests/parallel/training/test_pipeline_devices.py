"""The pipeline job on another device: the strict one of the tests."""

from pathlib import Path
from typing import Any

import pytest
import torch

from knet_hvd.comm import World
from knet_hvd.devices import TakenDevice
from knet_hvd.pipeline.decouplers import Conditioned, Decoupler, Delayed
from knet_hvd.training.pipeline import build as build_module
from knet_hvd.training.pipeline.config import PipelineConfig
from knet_hvd.training.pipeline.run import open_trainer
from tests import strict_device
from tests.parallel.mpi import needs_mpi_ranks, world

__all__ = ["world"]

STRICT = strict_device.register()  # before any backward pass: PyTorch counts devices then
CASES: dict[str, tuple[Decoupler, dict[str, Any]]] = {
    # It has dropout and batch normalization.
    "delayed": (
        Delayed(recompute=False, predict_weights=True),
        {"model": "vgg16", "width": 0.05, "microbatches": 2},
    ),
    "conditioned": (Conditioned(), {"model": "mnist4", "width": 0.2, "average_decay": 0.9}),
}


def trained(
    world: World, folder: Path | None, steps: int, case: str, **more: Any
) -> dict[str, Any]:
    decoupler, settings = CASES[case]
    config = PipelineConfig(
        decoupler=decoupler,
        batch_size=32,
        max_steps=steps,
        deterministic=True,
        checkpoint_dir=folder,
        checkpoint_every=100,
        **settings,
        **more,
    )
    trainer = open_trainer(config, world)
    summary = trainer.train()
    trainer.close()
    return summary


def learned(summary: dict[str, Any]) -> list[str]:
    return [stage["parameters_sha256"] for stage in summary["stages"]]


@needs_mpi_ranks(2)
@pytest.mark.parametrize("case", CASES)
def test_a_pipeline_job_learns_what_it_learns_on_the_cpu(
    case: str, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, and across checkpoints of either device."""
    folder = Path(world.gather_text(str(tmp_path), "tmp_path")[0])

    def on(device: torch.device) -> None:
        monkeypatch.setattr(
            build_module, "take_device", lambda *_: TakenDevice(device, f"device: {device}")
        )

    found = {}
    for name, device in (("cpu", torch.device("cpu")), ("strict", STRICT)):
        on(device)
        trained(world, folder / name, 2, case)
        found[name] = trained(world, folder / name, 4, case)
        assert found[name]["resumed_step"] == 2
    assert learned(found["strict"]) == learned(found["cpu"])
    assert found["strict"]["test_loss"] == pytest.approx(found["cpu"]["test_loss"], rel=1e-5)
    on(torch.device("cpu"))
    assert learned(trained(world, folder / "strict", 4, case)) == learned(found["cpu"])


@needs_mpi_ranks(2)
def test_stages_are_measured_on_the_device(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_module, "take_device", lambda *_: TakenDevice(STRICT, "strict"))
    summary = trained(world, None, 1, "conditioned", placement="measured")
    assert sum(len(stage["blocks"]) for stage in summary["stages"]) == 4

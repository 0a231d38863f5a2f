"""The data-parallel job on another device: the strict one of the tests.

Horovod's calls unwrap its tensors there; a tensor that lies elsewhere raises.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from knet_hvd import TernaryConfig
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.devices import TakenDevice, choose_device
from knet_hvd.errors import KnetError
from knet_hvd.training.data_parallel import task as task_module
from knet_hvd.training.data_parallel.config import TrainingConfig
from knet_hvd.training.data_parallel.run import open_trainer
from tests import strict_device
from tests.strict_horovod import take_strict_tensors

STRICT = strict_device.register()  # before any backward pass: PyTorch counts devices then

FEEDBACK = TernaryConfig(error_feedback=True)
CASES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "allgather": (
        {
            "model": "alexnet",  # it has dropout
            "exchange": "allgather",
            "ternary": FEEDBACK,
            "average_decay": 0.9,
            "optimizer": "adam",
        },
        {"allreduce_async_", "allgather_async"},
    ),
    "alltoall": ({"exchange": "alltoall", "ternary": FEEDBACK}, {"alltoall_async"}),
    "path B": ({"exchange": "allreduce", "ternary": FEEDBACK}, {"allreduce_async_"}),
    "float": ({"compression": "fp16"}, {"allreduce_async_"}),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One folder for all ranks, whose own temporary folders differ."""
    ranks = CollectiveRanks(HorovodCollectives())
    return Path(ranks.gather_text(str(tmp_path), "tmp_path")[0]) / "checkpoints"


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[torch.device], None]:
    """Have jobs take a device that is no flag's."""

    def take(device: torch.device) -> None:
        monkeypatch.setattr(
            task_module, "take_device", lambda *_: TakenDevice(device, f"device: {device}")
        )

    return take


def trained(folder: Path | None, steps: int, model: str = "mlp", **settings: Any) -> dict[str, Any]:
    config = TrainingConfig(
        model=model,
        width=0.05,
        batch_size=32,
        max_steps=steps,
        checkpoint_dir=folder,
        checkpoint_every=100,
        **settings,
    )
    trainer = open_trainer(config)
    summary = trainer.train()
    trainer.close()
    return summary


@pytest.mark.parametrize("case", CASES)
def test_a_job_learns_what_it_learns_on_the_cpu(
    case: str, folder: Path, on: Callable[[torch.device], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, and across checkpoints of either device."""
    settings, calls = CASES[case]
    expected = trained(None, 4, **settings)["parameters_sha256"]
    seen = take_strict_tensors(monkeypatch)
    on(STRICT)
    trained(folder, 2, **settings)
    there = trained(folder, 4, **settings)
    assert there["resumed_step"] == 2
    assert there["parameters_sha256"] == expected
    assert seen >= calls
    on(torch.device("cpu"))
    assert trained(folder, 4, **settings)["parameters_sha256"] == expected


def test_cuda_without_a_gpu_ends_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(KnetError, match="rank 0: device cuda: expected a GPU, got none"):
        trained(None, 1, device="cuda")
    assert choose_device("auto") == torch.device("cpu")

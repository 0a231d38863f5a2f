"""Pipelines on another device: the strict one of the tests, where no tensor may be left behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mpi4py.MPI import COMM_WORLD
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.pipeline import Backprop, Conditioned, Delayed, Local, Pipeline, Synthetic
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.link_settings import LinkSettings
from tests import strict_device
from tests.strict_horovod import take_strict_tensors

STRICT = strict_device.register()  # before any backward pass: PyTorch counts devices then
STEPS = 4
Learned = tuple[list[float], dict[str, Tensor]]

DECOUPLERS: dict[str, Callable[[], Decoupler]] = {
    "backprop": Backprop,
    "local": Local,
    "predsim": lambda: Local(loss="predsim"),
    "synthetic": Synthetic,
    "true": lambda: Synthetic(targets="true"),
    "corrected": lambda: Synthetic(targets="corrected"),
    "conditioned": Conditioned,
    "delayed": lambda: Delayed(predict_weights=True),
    "stashed": lambda: Delayed(recompute=False, predict_weights=True),
}


def network() -> nn.Sequential:
    def block(channels: int) -> nn.Sequential:
        norm = nn.BatchNorm2d(6)
        layers = [nn.Conv2d(channels, 6, 3, padding=1), norm, nn.ReLU(), nn.Dropout(0.3)]
        return nn.Sequential(*layers)

    head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))
    return nn.Sequential(block(1), block(6), block(6), head)


def batches(number: int = STEPS) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)

    def batch() -> tuple[Tensor, Tensor]:
        targets = torch.randint(3, (12,), generator=generator)
        return torch.randn(12, 1, 6, 6, generator=generator) + targets.view(-1, 1, 1, 1), targets

    return [batch() for _ in range(number)]


def opened(device: str | torch.device, decoupler: Decoupler, **settings: object) -> Pipeline:
    torch.manual_seed(11)
    given: dict[str, object] = {
        "microbatches": 2 if decoupler.takes_microbatches else 1,
        "clip_grad_norm": 1.0,
        "seed": 3,
    }
    return Pipeline(
        network,
        example=batches()[0][0][:1],
        loss=functional.cross_entropy,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        decoupler=decoupler,
        deterministic=True,
        device=device,
        **(given | settings),  # type: ignore[arg-type]
    )


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).float().mean()


def what_it_learns(pipeline: Pipeline, first: int = 0) -> Learned:
    """Return loss and accuracy, and the weights on rank 0."""
    for batch in batches()[first:]:
        pipeline.step(*batch)
    judged = [pipeline.evaluate(batches(2)), pipeline.evaluate(batches(2), accuracy)]
    state = pipeline.export() or {}
    pipeline.close()
    return judged, state


def assert_same(found: Learned, expected: Learned) -> None:
    judged, state = expected
    assert found[0] == judged
    assert found[1].keys() == state.keys()
    assert all(torch.equal(found[1][key], value) for key, value in state.items())
    assert {str(value.device) for value in found[1].values()} <= {"cpu"}


@pytest.mark.parametrize("name", DECOUPLERS)
def test_every_decoupler_learns_what_it_learns_on_the_cpu(name: str, tmp_path: Path) -> None:
    """Bit for bit, across a checkpoint that another kind of device has written."""
    expected = what_it_learns(opened("cpu", DECOUPLERS[name]()))
    there = opened(STRICT, DECOUPLERS[name]())
    assert {each.device for each in there.stage.blocks.state_dict().values()} == {STRICT}
    folder = COMM_WORLD.bcast(str(tmp_path))
    for batch in batches()[:2]:
        there.step(*batch)
    there.save(folder)
    assert_same(what_it_learns(there, 2), expected)
    for device in ("cpu", STRICT):
        resumed = opened(device, DECOUPLERS[name]())
        assert resumed.load(folder, batch_size=12) == 2
        assert_same(what_it_learns(resumed, 2), expected)


@pytest.mark.parametrize("encoding", ["bf16", "relu-sparse"])
def test_encodings_and_sent_targets_and_bf16(encoding: str) -> None:
    settings: dict[str, object] = {
        "links": LinkSettings(activation_encodings=(encoding,), gradient_encodings=("bf16",)),
        "targets": "send",
        "precision": "bf16",
    }
    (expected, _), (found, _) = (
        what_it_learns(opened(device, Backprop(), **settings)) for device in ("cpu", STRICT)
    )
    assert found == pytest.approx(expected, rel=0.05)  # other operations are in bf16 there


@pytest.mark.parametrize("compression", ["ternary", "none"])
def test_replicas_average_gradients_of_the_device(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"replicas": 2, "compression": compression}
    expected = what_it_learns(opened("cpu", Local(), **settings))
    seen = take_strict_tensors(monkeypatch)
    assert_same(what_it_learns(opened(STRICT, Local(), **settings)), expected)
    assert {"allreduce_async_", "broadcast_async_"} <= seen


def test_measured_cuts_are_measured_on_the_device() -> None:
    pipeline = opened(STRICT, Synthetic(), cuts="measured", seed=None)
    assert f"{STRICT}" in pipeline.devices
    what_it_learns(pipeline)

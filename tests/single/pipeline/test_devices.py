"""A stage on another device, and what a tensor that is left behind does there."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.comm.throttle import Throttle
from knet_hvd.devices.moving import moved
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.loss_head import LossHead
from knet_hvd.pipeline.runners import stage_io
from knet_hvd.pipeline.runners.decoupled import DecoupledRunner
from knet_hvd.pipeline.runners.stage_io import StageIO
from knet_hvd.pipeline.stage import Stage
from tests import strict_device

STRICT = strict_device.register()  # before any backward pass: PyTorch counts devices then


def step(device: torch.device) -> Tensor:
    """Return what a stage of one block learns in a step."""
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Linear(4, 3)).to(device)
    optimizer = torch.optim.SGD(blocks.parameters(), 0.1)
    stage = Stage(0, 1, blocks, optimizer, device=device)
    io = StageIO(StageLinks(), device=device)
    runner = DecoupledRunner(stage, LossHead(functional.cross_entropy), io, Throttle(), max_delay=1)
    runner.step(0, torch.ones(2, 4), torch.tensor([0, 2]))
    return blocks[0].weight.detach().cpu()


def test_a_stage_learns_the_same_on_every_device() -> None:
    assert torch.equal(step(STRICT), step(torch.device("cpu")))


@pytest.mark.parametrize("function", ["moved", "on_device"])
def test_targets_or_inputs_that_stay_behind_are_found(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_io, function, lambda tensor, device: tensor)
    with pytest.raises(RuntimeError, match="expected all tensors on the same device"):
        step(STRICT)


def test_a_tensor_that_is_there_is_not_copied() -> None:
    here, there = torch.ones(2), torch.ones(2, device=STRICT)
    assert moved(here, torch.device("cpu")) is here
    assert moved(there, STRICT) is there
    assert moved(here, STRICT).device == STRICT

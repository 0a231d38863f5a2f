"""What scripts and frameworks that were written for Horovod read and replace."""

import warnings
from typing import Any

import horovod.torch as hvd
import pytest
import torch
from torch import nn

import knet_hvd
from knet_hvd import TernaryConfig
from tests.parallel.bits import assert_same_on_all_ranks
from tests.parallel.helpers import backward, make_parameters, needs_ranks
from tests.parallel.optimizers import run_steps

SHAPES = [(30, 40), (700,)]
CONFIG = TernaryConfig(min_values=1)
pytestmark = needs_ranks(2)


@pytest.mark.parametrize("compression", ["ternary", "none", "fp16"])
def test_a_framework_that_puts_ours_in_horovods_place(
    compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hvd, "DistributedOptimizer", knet_hvd.DistributedOptimizer)
    model = nn.Linear(60, 20)
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(model.parameters(), lr=0.1 * (1 + hvd.rank()), momentum=0.9),
        model.named_parameters(),
        compression,
    )
    assert bool(optimizer.ternary_names) == (compression == "ternary")
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    assert optimizer.param_groups[0]["lr"] == 0.1
    optimizer.zero_grad()
    run_steps(optimizer, dict(model.named_parameters()), range(3))
    assert_same_on_all_ranks(model.parameters())


def make(**arguments: Any) -> tuple[dict[str, nn.Parameter], Any]:
    parameters = make_parameters(SHAPES)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    return parameters, knet_hvd.DistributedOptimizer(optimizer, parameters.items(), **arguments)


@pytest.mark.parametrize("compression", ["ternary", "none"])
def test_names_by_parameter(compression: str) -> None:
    parameters, optimizer = make(compression=compression, ternary=CONFIG)
    names = optimizer._parameter_names
    assert len(names) == len(SHAPES)
    assert all(names[parameter].endswith(name) for name, parameter in parameters.items())


@pytest.mark.parametrize("compression", ["ternary", "none"])
def test_horovods_words_for_a_step_after_synchronize(compression: str) -> None:
    parameters, optimizer = make(compression=compression, ternary=CONFIG)
    backward(parameters)
    optimizer.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.step()
    assert len(caught) == 1
    assert "optimizer.step() called without optimizer.skip_synchronize()" in str(caught[0].message)
    optimizer.zero_grad()

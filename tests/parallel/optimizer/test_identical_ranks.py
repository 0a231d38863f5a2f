"""All ranks hold the same parameters, bit for bit, after every step."""

import hashlib
from functools import partial
from typing import Any

import horovod.torch as hvd
import pytest
import torch
from torch import nn

from knet_hvd import TernaryConfig
from tests.parallel.bits import as_bytes, assert_same_on_all_ranks
from tests.parallel.helpers import make_gradient
from tests.parallel.optimizers import wrap

NUM_STEPS = 200
SMALL = {"min_values": 64}
SGD = partial(torch.optim.SGD, lr=0.05)
MOMENTUM = partial(torch.optim.SGD, lr=0.02, momentum=0.9)
ADAM = partial(torch.optim.Adam, lr=0.01)
RUNS: dict[str, dict[str, Any]] = {
    "sgd, sum": {
        "optimizer": partial(torch.optim.SGD, lr=0.05 / hvd.size()),
        "path": "allgather",
        "op": hvd.Sum,
        "ternary": TernaryConfig(**SMALL),
    },
    "momentum, error feedback": {
        "optimizer": MOMENTUM,
        "path": "alltoall",
        "ternary": TernaryConfig(error_feedback=True, **SMALL),
    },
    "adam, bucketed, crumb4, max": {
        "optimizer": ADAM,
        "path": "alltoall",
        "ternary": TernaryConfig(
            scale_group_size=256, wire_format="crumb4", scale_rule="max", **SMALL
        ),
        "max_bucket_values": 500,
    },
    "path B, adam": {"optimizer": ADAM, "path": "allreduce", "ternary": TernaryConfig(**SMALL)},
    "path B, momentum, error feedback": {
        "optimizer": MOMENTUM,
        "path": "allreduce",
        "ternary": TernaryConfig(error_feedback=True, **SMALL),
    },
    "path B, sgd, sum": {
        "optimizer": partial(torch.optim.SGD, lr=0.05 / hvd.size()),
        "path": "allreduce",
        "op": hvd.Sum,
        "ternary": TernaryConfig(**SMALL),
    },
}


def train(optimizer: Any, **arguments: Any) -> tuple[list[bytes], list[float]]:
    """Fit a fixed linear map; return a digest of the parameters and the loss a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 20))
    wrapped = wrap(optimizer(model.parameters()), dict(model.named_parameters()), **arguments)
    target = make_gradient((20, 20), rank=0, step=10**6)
    digests, history = [], []
    for step in range(NUM_STEPS):
        inputs = make_gradient((16, 20), rank=hvd.rank(), step=step)
        loss = nn.functional.mse_loss(model(inputs), (inputs @ target).tanh())
        wrapped.zero_grad()
        loss.backward()
        wrapped.step()
        raw = as_bytes(model.parameters()).numpy().tobytes()
        digests.append(hashlib.sha256(raw).digest())
        history.append(loss.item())
    return digests, history


@pytest.mark.parametrize("name", RUNS)
def test_all_ranks_agree_after_every_step_and_runs_repeat(name: str) -> None:
    digests, history = train(**RUNS[name])
    assert len(set(digests)) == NUM_STEPS  # it did train
    assert sum(history[-20:]) < 0.8 * sum(history[:20])
    joined = bytearray(b"".join(digests))
    assert_same_on_all_ranks([torch.frombuffer(joined, dtype=torch.uint8)])
    if RUNS[name]["path"] == "allreduce" and hvd.size() > 2:
        return  # Horovod fuses by time of arrival, and so adds fp32 in other orders
    again, _ = train(**RUNS[name])
    first_other = next((i for i in range(NUM_STEPS) if again[i] != digests[i]), None)
    assert first_other is None, f"the second run differs from step {first_other} on"

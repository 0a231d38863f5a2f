"""Replicas of a user's stages: each trains on its share of every batch."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from mpi4py.MPI import COMM_WORLD
from torch import Tensor
from torch.nn import functional

from knet_hvd.compression import TernaryConfig
from knet_hvd.pipeline import Backprop, Delayed, Pipeline
from knet_hvd.pipeline.decouplers import Decoupler
from tests.parallel.pipeline.test_pipeline_api import (
    adamw,
    loader,
    mlp,
    momentum,
    pipelined,
    plain_loop,
    samples,
)

ODD = 160 - 3 * 48 + 1
"""Samples of the last batch of an epoch: replicas cannot share them alike."""


def accuracy(output: Tensor, targets: Tensor) -> Tensor:
    return (output.argmax(1) == targets).double().mean()


@pytest.mark.parametrize("targets", ["shared", "send"])
def test_averages_of_replicas_are_what_a_plain_loop_computes(targets: str) -> None:
    """Also where the last batch of an epoch gives one replica a sample more."""
    data = samples(6)
    data = type(data)(*(torch.cat([each, each[:1]]) for each in data.tensors))
    assert len(data) % 48 == ODD
    torch.manual_seed(1)
    whole = mlp()
    expected_losses = plain_loop(whole, data, clip=0.5, optimizer_of=momentum)
    torch.manual_seed(1)
    pipeline, losses = pipelined(
        mlp(),
        data,
        Backprop(),
        optimizer=momentum,
        replicas=2,
        compression="none",
        clip_grad_norm=0.5,
        targets=targets,
    )
    assert losses == pytest.approx(expected_losses, abs=1e-5)
    with torch.no_grad():
        expected = float(accuracy(whole(data.tensors[0]), data.tensors[1]))
    has_data = pipeline.stage.is_first or targets == "shared"
    found = pipeline.evaluate(loader(data) if has_data else None, metric=accuracy)
    assert found == pytest.approx(expected)
    state = pipeline.export()
    pipeline.close()
    if state is not None:
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(state[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize("decoupler", [Backprop(), Delayed()], ids=str)
def test_replicas_learn_from_ternary_gradients(decoupler: Decoupler) -> None:
    data = samples(6)
    torch.manual_seed(1)
    pipeline, _ = pipelined(
        mlp(),
        data,
        decoupler,
        steps=200,
        optimizer=partial(adamw, rate=0.004),
        replicas=2,
        ternary=TernaryConfig(min_values=16),
    )
    found = pipeline.evaluate(loader(data), metric=accuracy)
    pipeline.close()
    assert found > 0.9, "0.33 by chance"


def make(**settings: object) -> Pipeline:
    everything = {
        "example": torch.zeros(1, 6),
        "loss": functional.cross_entropy,
        "optimizer": adamw,
        "timeout_s": 30.0,
    }
    return Pipeline(mlp(), **{**everything, **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: make(replicas=3), "expected a divisor of"),
        (lambda: make(replicas=0), "replicas: expected at least 1, got 0"),
        (lambda: make(replicas=2, compression="zip"), "expected none, fp16 or ternary, got 'zip'"),
    ],
)
def test_replicas_that_do_not_fit(build: Callable[[], Pipeline], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        build()


def test_a_batch_that_replicas_cannot_share() -> None:
    pipeline = make(replicas=COMM_WORLD.Get_size(), compression="none")
    with pytest.raises(ValueError, match="one for each replica, got 1"):
        pipeline.step(torch.zeros(1, 6), torch.zeros(1, dtype=torch.int64))

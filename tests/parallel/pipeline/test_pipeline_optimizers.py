"""A list of optimizers in a pipeline: Muon for matrices, AdamW for the rest."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from knet_hvd.pipeline import Backprop, Delayed, Pipeline
from tests.parallel.pipeline.test_pipeline_api import (
    assert_learned,
    loader,
    mlp,
    pipelined,
    samples,
)


def muon_and_adamw(parameters: list[nn.Parameter]) -> list[torch.optim.Optimizer]:
    matrices = [each for each in parameters if each.dim() == 2]
    others = [each for each in parameters if each.dim() != 2]
    made: list[torch.optim.Optimizer] = [torch.optim.Muon(matrices, lr=0.02)] if matrices else []
    return [*made, torch.optim.AdamW(others, lr=0.01)]


def test_locked_stages_compute_what_a_plain_loop_does() -> None:
    data = samples(6)
    torch.manual_seed(1)
    whole = mlp()
    optimizers, steps = muon_and_adamw(list(whole.parameters())), 0
    while steps < 50:
        for inputs, targets in loader(data):
            functional.cross_entropy(whole(inputs), targets).backward()
            for each in optimizers:
                each.step()
                each.zero_grad()
            steps += 1
    torch.manual_seed(1)
    pipeline, _ = pipelined(mlp(), data, Backprop(), optimizer=muon_and_adamw)
    torch.optim.lr_scheduler.StepLR(pipeline.optimizer[0], 10)  # what the function returned
    state = pipeline.export()
    pipeline.close()
    if state is not None:
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(state[name], value, atol=1e-6, rtol=0)


def test_late_gradients_on_predicted_weights() -> None:
    data = samples(6)
    torch.manual_seed(1)
    decoupler = Delayed(recompute=False, predict_weights=True)
    pipeline, _ = pipelined(mlp(), data, decoupler, steps=150, optimizer=muon_and_adamw)
    assert_learned(pipeline, data)


def test_weights_that_cannot_be_predicted() -> None:
    with pytest.raises(ValueError, match="expected an optimizer that keeps averages"):
        Pipeline(
            mlp(),
            example=torch.zeros(1, 6),
            loss=functional.cross_entropy,
            optimizer=torch.optim.RMSprop,
            decoupler=Delayed(predict_weights=True),
            timeout_s=30.0,
        )

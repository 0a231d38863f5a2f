"""Predicted weights, and what goes forward and backward on them."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from knet_hvd.pipeline.decouplers import Delayed
from knet_hvd.pipeline.gradient_source import LateGradientSource
from knet_hvd.pipeline.optimizers import has_averages, make_optimizer
from knet_hvd.pipeline.runners.late_gradients import LateGradients
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.pipeline.updates.combined import combined
from knet_hvd.pipeline.weights.prediction import predict_weights, running_on


def make_stage(optimizer: Any = "adam") -> Stage:
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    connected = nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(64, 6))
    blocks = nn.Sequential(convolution, connected)
    blocks.to(memory_format=torch.channels_last)
    return Stage(0, 2, blocks, make_optimizer(blocks, optimizer, 0.01))


def make_batch(seed: int, updates_ahead: int) -> Batch:
    torch.manual_seed(seed)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    targets = torch.randint(6, (5,))
    return Batch(
        step=seed,
        targets=targets,
        inputs=images,
        num_samples=5,
        num_updates_until_gradient=updates_ahead,
    )


def predicting(recompute: bool) -> LateGradientSource:
    source = Delayed(recompute=recompute, predict_weights=True).build((6,), None)
    assert isinstance(source, LateGradientSource)
    return source


def train(stage: Stage, steps: int) -> None:
    for _ in range(steps):
        for parameter in stage.blocks.parameters():
            parameter.grad = torch.randn_like(parameter)
        stage.update()


def weights(stage: Stage) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in stage.blocks.parameters()]


def predicted(stage: Stage, updates: int) -> list[Tensor]:
    targets = [torch.empty_like(weight) for weight in weights(stage)]
    predict_weights(targets, stage.blocks, stage.optimizer, updates)
    return targets


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
@pytest.mark.parametrize("updates", [1, 2, 5])
def test_predictions_come_true_if_the_optimizer_continues_as_before(
    optimizer: str, updates: int
) -> None:
    stage = make_stage(optimizer)
    torch.manual_seed(1)
    gradients = [torch.randn_like(weight) for weight in weights(stage)]

    def update(share: float) -> None:
        for parameter, gradient in zip(stage.blocks.parameters(), gradients, strict=True):
            parameter.grad = share * gradient
        stage.update()

    update(1.0)
    expected = predicted(stage, updates)
    for _ in range(updates):
        # 0.9 of a sum of momentum remain of it, and 0.1 keep it what it is.
        update(1.0 if optimizer == "adam" else 0.1)
    for actual, prediction in zip(weights(stage), expected, strict=True):
        torch.testing.assert_close(actual, prediction, rtol=1e-5, atol=1e-6)


def test_predictions_of_several_groups_and_optimizers_come_true() -> None:
    """Matrices by Muon, the rest by AdamW in two groups, one of which decays."""
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.Linear(9, 4))
    matrices = [each for each in blocks.parameters() if each.dim() == 2]
    norm, biases = list(blocks[1].parameters()), [blocks[0].bias, blocks[2].bias]
    groups = [{"params": norm, "weight_decay": 0.0}, {"params": biases, "weight_decay": 0.3}]
    optimizer = combined(
        [
            torch.optim.Muon(matrices[:1], lr=0.02, weight_decay=0.2),
            torch.optim.Muon(matrices[1:], lr=0.02, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(groups, lr=0.01, amsgrad=True),
        ],
        list(blocks.parameters()),
    )
    stage = Stage(0, 2, blocks, optimizer)
    gradients = [torch.randn_like(weight) for weight in weights(stage)]

    def update(muon_share: float) -> None:
        for parameter, gradient in zip(blocks.parameters(), gradients, strict=True):
            parameter.grad = gradient * (muon_share if parameter.dim() == 2 else 1.0)
        stage.update()

    update(1.0)
    expected = predicted(stage, 3)
    for _ in range(3):
        update(0.05)  # a gradient like the average, of which the first update left 0.05
    for actual, prediction in zip(weights(stage), expected, strict=True):
        torch.testing.assert_close(actual, prediction, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
        lambda p: torch.optim.AdamW(p, 0.1, betas=(0.8, 0.9999)),
        lambda p: torch.optim.Muon(p, 0.1),
        lambda p: torch.optim.Muon(p, 0.1, nesterov=False),
    ],
)
def test_gradients_that_have_come_make_a_prediction_better(optimizer: Any) -> None:
    """Of four microbatches none, one, three or all; with all it comes true."""
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Linear(16, 12, bias=False))
    stage = Stage(0, 2, blocks, optimizer(list(blocks.parameters())))
    (weight,) = blocks.parameters()
    train(stage, 20)
    parts = torch.randn(4, 12, 16)
    found = []
    for number in (0, 1, 3, 4):
        weight.grad = parts[:number].sum(0) / 4
        target = torch.empty_like(weight)
        predict_weights([target], blocks, stage.optimizer, 1, arrived_share=number / 4)
        found.append(target)
    before = weight.detach().clone()
    weight.grad = parts.sum(0) / 4
    stage.update()
    length = float((weight.detach() - before).norm())
    errors = [float((each - weight.detach()).norm()) / length for each in found]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.2
    assert errors[-1] < 1e-3


def test_a_first_gradient_that_has_come_is_not_divided_by_nothing() -> None:
    """Such as that of a character which no batch had before."""
    weight = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.Adam([weight], lr=0.1)
    stage = Stage(0, 2, nn.Sequential(nn.ParameterList([weight])), optimizer)
    for _ in range(5):
        weight.grad = torch.tensor([1.0, 1.0, 0.0])
        optimizer.step()
    weight.grad = torch.tensor([0.5, 0.5, 0.5])
    target = torch.empty(3)
    predict_weights([target], stage.blocks, optimizer, 1, arrived_share=0.5)
    assert float((target - weight.detach()).abs().max()) < 0.4, "a few times the rate"


def test_the_share_that_has_come_is_counted() -> None:
    late = LateGradients(
        None,  # type: ignore[arg-type]
        predicting(recompute=False),
        max_delay=2,
        num_microbatches=4,
        deterministic=True,
    )
    assert late.arrived_share == 0.0
    for microbatch in range(4):
        batch = make_batch(0, updates_ahead=0)
        batch.microbatch, batch.is_last = microbatch, microbatch == 3
        late.append(batch)
    assert late.arrived_share == 0.0  # none has come
    late._waiting.popleft()
    assert late.arrived_share == 0.25


def test_what_cannot_be_predicted_is_known() -> None:
    parameters = [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2, 2))]
    sgd = torch.optim.SGD(parameters[:1], lr=0.1)
    assert not has_averages(sgd)
    assert not has_averages(combined([sgd, torch.optim.Muon(parameters[1:])], parameters))
    assert not has_averages(torch.optim.RMSprop(parameters))
    assert has_averages(torch.optim.AdamW(parameters))
    with pytest.raises(ValueError, match=r"one of shape \[2, 2\] in 0"):
        combined([sgd], parameters)


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_nothing_to_predict(optimizer: str) -> None:
    """No update made yet, none to come, or no optimizer at all."""
    stage = make_stage(optimizer)
    for updates in (3, 0):
        pairs = zip(predicted(stage, updates), weights(stage), strict=True)
        assert all(torch.equal(p, w) for p, w in pairs)
        train(stage, 3)
    stage.optimizer = None
    pairs = zip(predicted(stage, 3), weights(stage), strict=True)
    assert all(torch.equal(p, w) for p, w in pairs)


@pytest.mark.parametrize("recompute", [True, False])
def test_it_goes_forward_on_predicted_weights_and_keeps_its_own(recompute: bool) -> None:
    stage, source = make_stage(), predicting(recompute)
    train(stage, 5)
    own, batch = weights(stage), make_batch(0, updates_ahead=3)
    twin = copy.deepcopy(stage)
    with running_on(predicted(stage, 3), twin.blocks):
        expected = twin.forward(batch.inputs.detach())
    assert torch.equal(source.forward(stage, batch), expected)
    pairs = zip(weights(stage), own, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("recompute", [True, False])
def test_gradients_are_those_of_the_weights_that_the_paper_says(recompute: bool) -> None:
    """Kept graphs: of those predicted; a second pass: of the weights at its time."""
    stage, source = make_stage(), predicting(recompute)
    train(stage, 5)
    batches: list[tuple[Batch, list[Tensor]]] = []
    for ahead in range(3):
        batch = make_batch(ahead, updates_ahead=ahead)
        batches.append((batch, predicted(stage, ahead)))
        source.forward(stage, batch)
        assert not source.backward_now(stage, batch)
        train(stage, 1)
    for batch, weights_then in batches:
        gradient = torch.randn(5, 6)
        twin = copy.deepcopy(stage)
        inputs = batch.inputs.detach().clone().requires_grad_()
        on = weights(stage) if recompute else weights_then
        with running_on(on, twin.blocks):
            twin.forward(inputs).backward(gradient)
            expected = [inputs.grad, *(p.grad for p in twin.blocks.parameters())]
        assert source.backward_late(stage, batch, gradient)
        grads = [p.grad for p in stage.blocks.parameters()]
        for a, e in zip([batch.inputs.grad, *grads], expected, strict=True):
            assert torch.equal(a, e)
        stage.update()


def test_a_stage_without_parameters() -> None:
    stage = Stage(0, 2, nn.Sequential(nn.ReLU()), None)
    for source in (predicting(recompute=True), predicting(recompute=False)):
        batch = make_batch(0, updates_ahead=2)
        source.forward(stage, batch)
        source.backward_now(stage, batch)
        assert source.backward_late(stage, batch, torch.ones(5, 3, 4, 4))
        assert torch.equal(batch.inputs.grad, (batch.inputs > 0).float())


def test_own_weights_are_back_after_an_error() -> None:
    stage = make_stage()
    train(stage, 2)
    own = weights(stage)
    others = predicted(stage, 2)
    with pytest.raises(RuntimeError), running_on(others, stage.blocks):
        stage.forward(torch.zeros(1, 7))
    pairs = zip(weights(stage), own, strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)

"""Backprop and Delayed: true gradients, at once or late, of the right weights."""

import copy
from typing import Any

import pytest
import torch

from knet_hvd.pipeline.decouplers import Backprop, Decoupler, Delayed, Use
from knet_hvd.pipeline.gradient_source import LateGradientSource
from knet_hvd.pipeline.stage import Batch, Stage
from tests.single.pipeline.stages import (
    IMAGES,
    batch_of,
    gradients,
    make_batch,
    make_image_stage,
    make_stage,
    pass_of_a_twin,
    through_checkpoint,
    true_gradients,
)

KINDS = [Backprop(), Delayed(), Delayed(recompute=False)]


def source_of(decoupler: Decoupler) -> LateGradientSource:
    source = decoupler.build((12,), None)
    assert isinstance(source, LateGradientSource)
    return source


@pytest.mark.parametrize("decoupler", KINDS, ids=str)
def test_true_gradients_are_those_of_backpropagation(decoupler: Decoupler) -> None:
    stage, batch, source = make_stage(), make_batch(), source_of(decoupler)
    gradient = torch.randn_like(source.forward(stage, batch))
    expected = true_gradients(stage, batch, gradient)
    assert not source.backward_now(stage, batch)
    assert gradients(stage) == [None, None]
    assert source.backward_late(stage, batch, gradient)
    actual = [batch.take_input_gradient(), *gradients(stage)]
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_delayed_gradients_meet_the_present_weights() -> None:
    stage, batch, source = make_stage(), make_batch(), source_of(Delayed())
    output = source.forward(stage, batch)
    assert not output.requires_grad, "a graph would hold the old weights"
    gradient = torch.randn_like(output)
    source.backward_now(stage, batch)
    with torch.no_grad():
        for parameter in stage.blocks.parameters():
            parameter.add_(0.5)
    expected = true_gradients(stage, batch, gradient)
    source.backward_late(stage, batch, gradient)
    assert torch.equal(batch.take_input_gradient(), expected[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_stashed_gradients_are_those_of_the_old_weights(name: str, precision: str) -> None:
    """Of several batches under way, each goes back through weights of its own."""
    stage, source = make_image_stage(name, precision), source_of(Delayed(recompute=False))
    batches, expected = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        batch = batch_of(torch.randn(IMAGES, requires_grad=True), seed)
        gradient = torch.randn(4, 6)
        twin, inputs, output = pass_of_a_twin(stage, batch.inputs)
        output.backward(gradient)
        expected.append([inputs.grad, *gradients(twin)])
        source.forward(stage, batch)
        assert not source.backward_now(stage, batch)
        batches.append((batch, gradient))
        update_at_random(stage)
    for (batch, gradient), want in zip(batches, expected, strict=True):
        assert source.backward_late(stage, batch, gradient)
        actual = [batch.take_input_gradient(), *gradients(stage)]
        assert all(torch.equal(a, e) for a, e in zip(actual, want, strict=True))
        stage.update()


def update_at_random(stage: Stage) -> None:
    for parameter in stage.blocks.parameters():
        parameter.grad = torch.randn_like(parameter)
    stage.update()


def test_a_stashed_batch_of_a_checkpoint_gets_its_graph_back() -> None:
    stage, source = make_image_stage("sgd", "fp32"), source_of(Delayed(recompute=False))
    batch = batch_of(torch.randn(IMAGES, requires_grad=True))
    source.forward(stage, batch)
    update_at_random(stage)
    before = copy.deepcopy(stage.blocks.state_dict())
    random_state = torch.get_rng_state()
    copied = through_checkpoint(source, stage, batch)
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in stage.blocks.state_dict().items():
        assert torch.equal(value, before[name]), name
    found = []
    for each in (batch, copied):
        source.backward_late(stage, each, torch.ones(4, 6))
        found.append([each.take_input_gradient(), *gradients(stage)])
        stage.blocks.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("needs_gradient", [True, False])
def test_a_replayed_batch_of_a_checkpoint_has_its_inputs(needs_gradient: bool) -> None:
    stage, source = make_stage(), source_of(Delayed())
    batch = make_batch()
    batch.inputs.requires_grad_(needs_gradient)
    source.forward(stage, batch)
    copied = through_checkpoint(source, stage, batch)
    facts = ("step", "microbatch", "num_samples", "log_metrics", "is_last")
    assert [getattr(copied, n) for n in facts] == [getattr(batch, n) for n in facts]
    assert torch.equal(copied.inputs, batch.inputs)
    assert copied.inputs.requires_grad == needs_gradient
    assert torch.equal(copied.targets, batch.targets)


def test_inputs_that_were_let_go_are_missed() -> None:
    batch = Batch(step=7, targets=torch.zeros(2), inputs=None, num_samples=2)
    with pytest.raises(ValueError, match="the inputs of step 7 were let go"):
        make_stage().forward(batch.inputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Delayed(max_delay=0), "max_delay: expected at least 1, got 0"),
        (
            lambda: Delayed(predict_weights=True).check(Use(optimizer_has_averages=False)),
            "predict_weights: expected an optimizer that keeps averages",
        ),
        (
            lambda: Delayed().check(
                Use(num_microbatches=2, num_replicas=2, saves_checkpoints=True)
            ),
            "expected 1 with delayed gradients, replicas and checkpoints together",
        ),
    ],
)
def test_settings_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_the_limit_of_a_delay() -> None:
    assert [Delayed().delay_limit(later) for later in (1, 3)] == [2, 4]
    assert Delayed(max_delay=7).delay_limit(1) == 7

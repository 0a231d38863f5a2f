"""Synthetic gradients with true targets, and corrected ones."""

import pytest
import torch
from torch import Tensor

from knet_hvd.pipeline.decouplers import Synthetic
from knet_hvd.pipeline.gradient_source import LateGradientSource
from tests.single.pipeline.stages import (
    IMAGES,
    batch_of,
    draw_parameters,
    gradients,
    make_image_stage,
    pass_of_a_twin,
    through_checkpoint,
)


def source_of(decoupler: Synthetic) -> LateGradientSource:
    torch.manual_seed(2)
    source = decoupler.build((6,), None)
    assert isinstance(source, LateGradientSource)
    draw_parameters(source, std=0.1)
    return source


@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_true_targets_go_back_through_the_weights_that_made_the_output(
    from_checkpoint: bool,
) -> None:
    """A stage learns at once from a prediction; what it sends back is true."""
    stage = make_image_stage("sgd", "fp32")
    source = source_of(Synthetic(targets="true", scale_by_quality=False))
    batch = batch_of(torch.randn(IMAGES, requires_grad=True))
    _, inputs, output = pass_of_a_twin(stage, batch.inputs)
    source.forward(stage, batch)
    assert source.backward_now(stage, batch)
    assert batch.take_input_gradient() is None, "no synthetic gradient is sent back"
    assert any(bool(gradient.any()) for gradient in gradients(stage))
    stage.update()
    if from_checkpoint:
        batch = through_checkpoint(source, stage, batch)
    gradient = torch.randn(4, 6)
    before = [p.detach().clone() for p in stage.blocks.parameters()]
    assert not source.backward_late(stage, batch, gradient)
    output.backward(gradient)
    assert torch.equal(batch.take_input_gradient(), inputs.grad)
    after = stage.blocks.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert gradients(stage) == [None] * len(before)
    assert batch.kept_inputs is None


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("from_checkpoint", [False, True])
def test_what_a_synthetic_gradient_missed_joins_the_next_update(
    from_checkpoint: bool, first: bool
) -> None:
    """In the end a batch has given the true gradient, of the weights it met."""
    stage = make_image_stage("sgd", "fp32")
    source = source_of(Synthetic(targets="corrected", scale_by_quality=False))
    images = torch.randn(IMAGES).contiguous(memory_format=torch.channels_last)
    batch = batch_of(images.requires_grad_(not first))
    twin, inputs, output = pass_of_a_twin(stage, images)
    source.forward(stage, batch)
    assert source.backward_now(stage, batch)
    assert batch.take_input_gradient() is None
    at_once = [p.grad.clone() for p in stage.blocks.parameters()]
    assert any(bool(each.any()) for each in at_once)
    stage.update()
    if from_checkpoint:
        batch = through_checkpoint(source, stage, batch)
    gradient = torch.randn(4, 6)
    assert not source.backward_late(stage, batch, gradient)
    output.backward(gradient)
    for early, late, true in zip(at_once, gradients(stage), gradients(twin), strict=True):
        assert isinstance(late, Tensor)
        torch.testing.assert_close(early + late, true, atol=1e-5, rtol=1e-4)
    for parameter in stage.blocks.parameters():
        assert parameter.grad.stride() == parameter.stride()
    sent_back = batch.take_input_gradient()
    assert sent_back is None if first else torch.equal(sent_back, inputs.grad)

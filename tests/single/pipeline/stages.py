"""Small stages and batches, and what a plain backward pass makes of them."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from knet_hvd.pipeline.gradient_source import GradientSource, LateGradientSource
from knet_hvd.pipeline.optimizers import make_optimizer
from knet_hvd.pipeline.runners.batches_under_way import batch_from_tree, batch_to_tree
from knet_hvd.pipeline.stage import Batch, Stage

IMAGES = (4, 3, 8, 8)


def make_stage(num_stages: int = 2) -> Stage:
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Sequential(nn.Linear(5, 12), nn.ReLU()))
    return Stage(0, num_stages, blocks, make_optimizer(blocks, "sgd", 0.1))


def make_image_stage(optimizer: Any, precision: Any) -> Stage:
    """A stage of all kinds of layers, with images of any layout."""
    torch.manual_seed(0)
    convolution = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    connected = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 6)]
    blocks = nn.Sequential(nn.Sequential(*convolution, nn.MaxPool2d(2)), nn.Sequential(*connected))
    return Stage(0, 2, blocks, make_optimizer(blocks, optimizer, 0.1), precision)


def batch_of(inputs: Tensor, step: int = 0, *, log_metrics: bool = True) -> Batch:
    targets = torch.randint(10, (len(inputs),))
    return Batch(
        step=step, targets=targets, inputs=inputs, num_samples=len(inputs), log_metrics=log_metrics
    )


def make_batch(rows: int = 8) -> Batch:
    torch.manual_seed(1)
    return batch_of(torch.randn(rows, 5).requires_grad_())


def gradients(stage: Stage) -> list[Tensor | None]:
    return [p.grad for p in stage.blocks.parameters()]


def true_gradients(stage: Stage, batch: Batch, gradient: Tensor) -> list[Tensor]:
    """Return the gradients of a batch's inputs and of the parameters as they are."""
    inputs = batch.inputs.detach().clone().requires_grad_()
    twin = copy.deepcopy(stage.blocks)
    twin(inputs).backward(gradient)
    return [inputs.grad, *[p.grad for p in twin.parameters()]]


def pass_of_a_twin(stage: Stage, images: Tensor) -> tuple[Stage, Tensor, Tensor]:
    """Return a copy of a stage, its inputs, and its output with a graph of its own."""
    with torch.random.fork_rng():  # the same dropout
        twin = copy.deepcopy(stage)
        inputs = images.detach().clone().requires_grad_()
        return twin, inputs, twin.forward(inputs)


def through_checkpoint(source: LateGradientSource, stage: Stage, batch: Batch) -> Batch:
    """Return what a checkpoint keeps of a batch."""
    inputs = batch.kept_inputs
    needs_gradient = inputs is not None and inputs.requires_grad
    tree = batch_to_tree(source, batch)
    return batch_from_tree(source, stage, tree, needs_gradient=needs_gradient)


def draw_parameters(source: GradientSource, std: float) -> None:
    """Make a source's predictions other than the zeros that they begin with."""
    for parameter in source.modules.parameters():
        nn.init.normal_(parameter, std=std)

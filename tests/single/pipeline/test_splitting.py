"""Cuts, and what crosses them."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from knet_hvd.models import build_model
from knet_hvd.models.registry import IMAGE_MODELS
from knet_hvd.pipeline.activation import Signature
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder
from knet_hvd.pipeline.build import build_stage
from knet_hvd.pipeline.decouplers import Backprop
from knet_hvd.pipeline.optimizers import named_optimizer
from knet_hvd.pipeline.placement.cuts import (
    check_cuts,
    equal_cuts,
    num_stages,
    output_signatures,
    stage_blocks,
)
from knet_hvd.pipeline.spec import PipelineSpec

MNIST = (1, 28, 28)


def spec_of(name: str, width: float, layerwise: bool = False, **settings: Any) -> PipelineSpec:
    build = partial(
        build_model, name, in_shape=MNIST, num_classes=10, width=width, layerwise=layerwise
    )
    return PipelineSpec(
        builder=BlockBuilder(build),
        example=torch.zeros(4, *MNIST),
        loss=functional.cross_entropy,
        make_optimizer=lambda parameters: named_optimizer("adam", parameters, 0.001),
        decoupler=Backprop(),
        **settings,
    )


@given(num_stages=st.integers(1, 6), more=st.integers(0, 20))
def test_equal_cuts_give_each_block_to_one_stage(num_stages: int, more: int) -> None:
    num_blocks = num_stages + more
    cuts = equal_cuts(num_blocks, num_stages)
    check_cuts(cuts, num_blocks, num_stages)
    stages = [stage_blocks(num_blocks, cuts, stage) for stage in range(num_stages)]
    assert [block for stage in stages for block in stage] == list(range(num_blocks))
    sizes = [len(stage) for stage in stages]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("name", sorted(IMAGE_MODELS))
def test_output_shapes_are_those_of_a_real_pass(name: str, layerwise: bool) -> None:
    size: dict[str, Any] = {"num_classes": 7, "width": 0.1, "layerwise": layerwise}
    build = partial(build_model, name, in_shape=MNIST, **size)
    outputs = output_signatures(BlockBuilder(build), torch.zeros(2, *MNIST))
    model = build()
    activation = torch.randn(2, *MNIST)
    for block, output in zip(model, outputs, strict=True):
        activation = block(activation)
        assert output == Signature.of(activation, "the block")


def test_shapes_draw_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    spec = spec_of("mnist4", width=1.0)
    output_signatures(spec.builder, spec.example)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("layerwise", [False, True])
def test_stages_begin_with_the_weights_of_one_process(layerwise: bool) -> None:
    spec = spec_of("mnist8", width=0.2, layerwise=layerwise, seed=5)
    torch.manual_seed(5)
    whole = build_model("mnist8", in_shape=MNIST, num_classes=10, width=0.2, layerwise=layerwise)
    expected, cuts = whole.state_dict(), equal_cuts(len(whole), 3)
    seen = {}
    for index in range(3):
        stage = build_stage(spec, cuts, index)
        seen.update(stage.blocks.state_dict())
    assert list(seen) == list(expected)
    assert all(torch.equal(seen[name], expected[name]) for name in seen)


@pytest.mark.parametrize(
    ("cuts", "message"),
    [
        ((1, 2), "cuts: expected 1 for 2 stages, got 2"),
        ((0,), "rising numbers from 1 to 3, got"),
        ((4,), "rising numbers from 1 to 3, got"),
    ],
)
def test_cuts_that_leave_a_stage_empty(cuts: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_cuts(cuts, 4, 2)


def test_more_stages_than_blocks() -> None:
    with pytest.raises(ValueError, match=r"stages: expected 1 to 4, .* got 5"):
        equal_cuts(4, 5)


def test_running_statistics_move_as_far_a_step_with_microbatches() -> None:
    images = torch.randn(4, *MNIST)
    means = []
    for microbatches in (1, 4):
        stage = build_stage(spec_of("vgg16", width=0.1, num_microbatches=microbatches), (), 0)
        for _ in range(microbatches):
            stage.forward(images)
        means.append(dict(stage.blocks.named_buffers()))
    for name, expected in means[0].items():
        if "running" in name:
            torch.testing.assert_close(means[1][name], expected, msg=name)


def test_stages_that_ranks_can_hold() -> None:
    assert num_stages(6, replicas=2) == 3
    assert num_stages(6, replicas=2, stages=3) == 3
    with pytest.raises(ValueError, match=r"replicas: expected a divisor of 3, .* got 2"):
        num_stages(3, replicas=2)
    with pytest.raises(ValueError, match=r"expected as many as .* 4, got 3 \* 1 = 3"):
        num_stages(4, replicas=1, stages=3)

"""Cuts, and what crosses them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.models import MODELS, build_model
from knet_hvd.pipeline.build import build_stage
from knet_hvd.pipeline.decouplers import SynthesizerConfig
from knet_hvd.pipeline.placement.cuts import check_cuts, equal_cuts, output_shapes, stage_blocks
from knet_hvd.training.pipeline.config import PipelineConfig

MNIST = (1, 28, 28)


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
@pytest.mark.parametrize("name", sorted(MODELS))
def test_output_shapes_are_those_of_a_real_pass(name: str, layerwise: bool) -> None:
    size = {"num_classes": 7, "width": 0.1, "layerwise": layerwise}
    shapes = output_shapes(name, in_shape=MNIST, **size)
    model = build_model(name, in_shape=MNIST, **size)
    activation = torch.randn(2, *MNIST)
    for block, shape in zip(model, shapes, strict=True):
        activation = block(activation)
        assert tuple(activation.shape[1:]) == shape


def test_shapes_draw_no_random_numbers() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    output_shapes("mnist4", in_shape=MNIST, num_classes=10, width=1.0)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("cut_between", ["blocks", "layers"])
def test_stages_begin_with_the_weights_of_one_process(cut_between: Any) -> None:
    config = PipelineConfig(model="mnist8", width=0.2, seed=5, cut_between=cut_between)
    torch.manual_seed(5)
    whole = build_model(
        "mnist8", in_shape=MNIST, num_classes=10, width=0.2, layerwise=config.layerwise
    )
    expected, cuts = whole.state_dict(), equal_cuts(len(whole), 3)
    seen = {}
    for index in range(3):
        stage = build_stage(config, cuts, index, in_shape=MNIST, num_classes=10)
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
        config = PipelineConfig(
            model="vgg16", width=0.1, decoupler="backprop", microbatches=microbatches
        )
        stage = build_stage(config, (), 0, in_shape=MNIST, num_classes=10)
        for _ in range(microbatches):
            stage.forward(images)
        means.append(dict(stage.blocks.named_buffers()))
    for name, expected in means[0].items():
        if "running" in name:
            torch.testing.assert_close(means[1][name], expected, msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: expected at least 1, got 0"),
        ({"stages": 0}, "stages: expected at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate: expected > 0"),
        (
            {"decoupler": "backprop", "microbatches": 3},
            "expected a divisor of batch_size 64, got 3",
        ),
        ({"slow_rank": "1"}, "expected RANK:FACTOR .* got '1'"),
        ({"slow_rank": "1:0.5"}, "a factor of at least 1"),
        ({"decoupler": "local", "microbatches": 2}, "expected 1 with local"),
        (
            {
                "decoupler": "delayed",
                "microbatches": 2,
                "replicas": 2,
                "checkpoint_dir": Path("somewhere"),
            },
            "expected 1 with delayed gradients, replicas and checkpoints together",
        ),
        (
            {
                "decoupler": "conditioned",
                "synthesizer": SynthesizerConfig(targets="true", correct=True),
                "replicas": 2,
                "checkpoint_dir": Path("somewhere"),
            },
            "expected no replicas together with checkpoints, got 2",
        ),
    ],
)
def test_settings_that_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PipelineConfig(**settings)

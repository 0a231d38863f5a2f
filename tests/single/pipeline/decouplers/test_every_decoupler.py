"""What holds for each decoupler, and for the loss of the last stage."""

import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.pipeline.decouplers import (
    DECOUPLERS,
    Backprop,
    Conditioned,
    Decoupler,
    Delayed,
    Local,
    Synthetic,
    Use,
    decoupler_named,
)
from knet_hvd.pipeline.gradient_source import LateGradientSource
from knet_hvd.pipeline.loss_head import LossHead
from knet_hvd.pipeline.optimizers import make_optimizer
from knet_hvd.pipeline.stage import Batch, Stage
from tests.single.pipeline.stages import batch_of, gradients, make_batch, make_stage

SMALL = {"hidden_layers": 1, "hidden_units": 8, "kernel_size": 3}
EACH: list[Decoupler] = [
    Backprop(),
    Delayed(),
    Delayed(recompute=False),
    Delayed(predict_weights=True),
    Local(),
    Local(loss="predsim"),
    Synthetic(**SMALL),
    Conditioned(**SMALL),
    Synthetic(targets="true"),
    Conditioned(targets="corrected"),
]
KEEP_GRAPHS = [
    Delayed(recompute=False),
    Synthetic(targets="true"),
    Synthetic(targets="corrected"),
]


@pytest.mark.parametrize("decoupler", EACH, ids=str)
def test_whether_gradients_return_is_what_its_source_waits_for(decoupler: Decoupler) -> None:
    source = decoupler.build((5,), 10)
    assert isinstance(source, LateGradientSource) == decoupler.gradients_return
    assert decoupler_named(decoupler.name) is type(decoupler)


def test_an_unknown_name() -> None:
    with pytest.raises(ValueError, match=r"decoupler: expected one of backprop, .*, got 'bp'"):
        decoupler_named("bp")


@pytest.mark.parametrize("name", sorted(DECOUPLERS))
def test_who_takes_microbatches(name: str) -> None:
    decoupler = DECOUPLERS[name]()
    if name in ("backprop", "delayed"):
        decoupler.check(Use(num_microbatches=4))
    else:
        with pytest.raises(ValueError, match=f"microbatches: expected 1 with {name}, .* got 4"):
            decoupler.check(Use(num_microbatches=4))


@pytest.mark.parametrize("decoupler", EACH, ids=str)
def test_a_first_stage_with_nothing_to_learn(decoupler: Decoupler) -> None:
    source = decoupler.build((5,), 10)
    stage = Stage(0, 2, nn.Sequential(nn.ReLU()), None)
    batch = batch_of(torch.randn(4, 5))
    source.forward(stage, batch)
    source.backward_now(stage, batch)
    stage.update()
    if isinstance(source, LateGradientSource):
        source.backward_late(stage, batch, torch.randn(4, 5))
        stage.update()
    assert batch.take_input_gradient() is None


class Watched(nn.Module):
    """A layer whose own node keeps its output, as that of ReLU does."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs.exp()
        self.output = weakref.ref(outputs)
        return outputs


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("decoupler", KEEP_GRAPHS, ids=str)
def test_a_graph_is_freed_once_it_has_served(decoupler: Decoupler, first: bool) -> None:
    watched = Watched()
    blocks = nn.Sequential(nn.Linear(5, 6), watched, nn.Linear(6, 6))
    stage = Stage(0, 2, blocks, make_optimizer(blocks, "sgd", 0.1))
    source = decoupler.build((6,), 10)
    assert isinstance(source, LateGradientSource)
    for step in range(3):
        batch = batch_of(torch.randn(4, 5, requires_grad=not first), step, log_metrics=False)
        source.forward(stage, batch)
        if source.backward_now(stage, batch):
            stage.update()
        source.backward_late(stage, batch, torch.randn(4, 6))
        stage.update()
        del batch
        assert watched.output() is None, "the graph still holds it"


def test_microbatches_add_up_to_the_mean_loss() -> None:
    stage, whole = make_stage(num_stages=1), make_batch()
    functional.cross_entropy(stage.forward(whole.inputs), whole.targets).backward()
    expected = [p.grad.clone() for p in stage.blocks.parameters()]
    stage.blocks.zero_grad()
    head = LossHead(functional.cross_entropy)
    for rows in (slice(0, 3), slice(3, 8)):
        inputs = whole.inputs.detach()[rows]
        part = Batch(step=0, targets=whole.targets[rows], inputs=inputs, num_samples=8)
        head.forward(stage, part)
        assert head.backward_now(stage, part)
    for actual, want in zip(gradients(stage), expected, strict=True):
        torch.testing.assert_close(actual, want)


def test_a_loss_that_is_no_scalar() -> None:
    stage, batch = make_stage(num_stages=1), make_batch()
    head = LossHead(lambda output, targets: output.sum(1))
    head.forward(stage, batch)
    with pytest.raises(ValueError, match=r"loss: expected a scalar, got \[8\]"):
        head.backward_now(stage, batch)

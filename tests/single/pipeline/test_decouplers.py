"""Decouplers, each alone on one stage."""

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.pipeline.decouplers import (
    AuxiliaryConfig,
    Backprop,
    Conditioned,
    Decoupler,
    Delayed,
    Local,
    Objective,
    Stashed,
    SynthesizerConfig,
    Synthetic,
)
from knet_hvd.pipeline.decouplers.local_loss import AuxiliaryLoss, similarity_matrix
from knet_hvd.pipeline.decouplers.registry import make_decoupler
from knet_hvd.pipeline.decouplers.synthesizer import Synthesizer
from knet_hvd.pipeline.decouplers.synthetic import compare
from knet_hvd.pipeline.optimizers import make_optimizer
from knet_hvd.pipeline.runners.batch_state import pack_batch, unpack_batch
from knet_hvd.pipeline.stage import Batch, Stage
from knet_hvd.training.pipeline.config import PipelineConfig

SHAPES = [(12,), (6, 4, 4), (6, 1, 1)]
SMALL = SynthesizerConfig(hidden_layers=1, hidden_units=8, kernel_size=3)


def make_stage(num_stages: int = 2) -> Stage:
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Sequential(nn.Linear(5, 12), nn.ReLU()))
    return Stage(0, num_stages, blocks, make_optimizer(blocks, "sgd", 0.1))


def make_batch(rows: int = 8, num_samples: int | None = None) -> Batch:
    torch.manual_seed(1)
    inputs, labels = torch.randn(rows, 5), torch.randint(10, (rows,))
    return Batch(0, 0, labels, num_samples or rows, True, inputs.requires_grad_())


def gradients(stage: Stage) -> list[Tensor | None]:
    return [p.grad for p in stage.blocks.parameters()]


def true_gradients(stage: Stage, batch: Batch, gradient: Tensor) -> list[Tensor]:
    inputs = batch.inputs.detach().clone().requires_grad_()
    twin = copy.deepcopy(stage.blocks)
    twin(inputs).backward(gradient)
    return [inputs.grad, *[p.grad for p in twin.parameters()]]


@pytest.mark.parametrize("kind", [Backprop, Delayed, Stashed])
def test_true_gradients_are_those_of_backpropagation(kind: type[Decoupler]) -> None:
    stage, batch, decoupler = make_stage(), make_batch(), kind()
    decoupler.forward(stage, batch)
    gradient = torch.randn_like(batch.output)
    expected = true_gradients(stage, batch, gradient)
    assert not decoupler.learn(stage, batch)
    assert gradients(stage) == [None, None]
    assert decoupler.learn_from(stage, batch, gradient)
    actual = [batch.take_input_gradient(), *gradients(stage)]
    assert all(torch.equal(a, e) for a, e in zip(actual, expected, strict=True))


def test_delayed_gradients_meet_the_present_weights() -> None:
    stage, batch, decoupler = make_stage(), make_batch(), Delayed()
    decoupler.forward(stage, batch)
    assert not batch.output.requires_grad, "a graph would hold the old weights"
    gradient = torch.randn_like(batch.output)
    decoupler.learn(stage, batch)
    with torch.no_grad():
        for parameter in stage.blocks.parameters():
            parameter.add_(0.5)
    expected = true_gradients(stage, batch, gradient)
    decoupler.learn_from(stage, batch, gradient)
    assert torch.equal(batch.take_input_gradient(), expected[0])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_stashed_gradients_are_those_of_the_old_weights(name: str, precision: str) -> None:
    """Of several batches under way, each goes back through weights of its own."""
    stage, decoupler = make_image_stage(name, precision), Stashed()
    batches, expected = [], []
    for seed in range(3):
        torch.manual_seed(seed)
        images = torch.randn(4, 3, 8, 8, requires_grad=True)
        batch = Batch(seed, 0, torch.randint(10, (4,)), 4, True, images)
        gradient = torch.randn(4, 6)
        with torch.random.fork_rng():  # the same dropout
            twin = copy.deepcopy(stage)
            inputs = images.detach().clone().requires_grad_()
            twin.forward(inputs).backward(gradient)
        expected.append([inputs.grad, *gradients(twin)])
        decoupler.forward(stage, batch)
        assert not decoupler.learn(stage, batch)
        batches.append((batch, gradient))
        for parameter in stage.blocks.parameters():
            parameter.grad = torch.randn_like(parameter)
        stage.update()
    for (batch, gradient), want in zip(batches, expected, strict=True):
        assert decoupler.learn_from(stage, batch, gradient)
        actual = [batch.take_input_gradient(), *gradients(stage)]
        assert all(torch.equal(a, e) for a, e in zip(actual, want, strict=True))
        stage.update()


def test_what_does_not_run_forward_again_cannot_be_told_not_to() -> None:
    config = PipelineConfig(decoupler="delayed", recompute=False)
    assert isinstance(make_decoupler(config, (12,), 10), Stashed)
    with pytest.raises(ValueError, match=r"recompute: only delayed .*, got local"):
        PipelineConfig(decoupler="local", recompute=False)


def make_image_stage(optimizer: str, precision: Any) -> Stage:
    """A stage of all kinds of layers, with images of any layout."""
    torch.manual_seed(0)
    convolution = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()]
    connected = [nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 6)]
    blocks = nn.Sequential(nn.Sequential(*convolution, nn.MaxPool2d(2)), nn.Sequential(*connected))
    return Stage(0, 2, blocks, make_optimizer(blocks, optimizer, 0.1), precision)


def pass_of_a_twin(stage: Stage, images: Tensor) -> tuple[Stage, Tensor, Tensor]:
    """Return a copy of a stage, its inputs, and its output with a graph of its own."""
    with torch.random.fork_rng():
        twin = copy.deepcopy(stage)
        inputs = images.detach().clone().requires_grad_()
        return twin, inputs, twin.forward(inputs)


@pytest.mark.parametrize("through_a_checkpoint", [False, True])
def test_true_targets_go_back_through_the_weights_that_made_the_output(
    through_a_checkpoint: bool,
) -> None:
    """A stage learns at once from a prediction; what it sends back is true."""
    stage = make_image_stage("sgd", "fp32")
    decoupler = Synthetic((6,), SynthesizerConfig(targets="true", trust=False))
    learn_to_predict_ones(decoupler)
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    batch = Batch(0, 0, torch.randint(10, (4,)), 4, True, images)
    _, inputs, output = pass_of_a_twin(stage, images)
    decoupler.forward(stage, batch)
    assert decoupler.learn(stage, batch)
    assert batch.take_input_gradient() is None, "no synthetic gradient is sent back"
    assert any(bool(gradient.any()) for gradient in gradients(stage))
    stage.update()
    if through_a_checkpoint:
        batch = unpack_batch(pack_batch(batch), needs_gradient=True)
        decoupler.revive(stage, batch)
    gradient = torch.randn(4, 6)
    before = [p.detach().clone() for p in stage.blocks.parameters()]
    assert not decoupler.learn_from(stage, batch, gradient)
    output.backward(gradient)
    assert torch.equal(batch.take_input_gradient(), inputs.grad)
    after = stage.blocks.parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert gradients(stage) == [None] * len(before)
    assert batch.stash is None
    assert batch.output is None


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("through_a_checkpoint", [False, True])
def test_what_a_synthetic_gradient_missed_joins_the_next_update(
    through_a_checkpoint: bool, first: bool
) -> None:
    """In the end a batch has given the true gradient, of the weights it met."""
    stage = make_image_stage("sgd", "fp32")
    config = SynthesizerConfig(targets="true", correct=True, trust=False)
    decoupler = Synthetic((6,), config)
    for parameter in decoupler.modules[0].parameters():
        nn.init.normal_(parameter, std=0.1)
    images = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    images.requires_grad_(not first)
    batch = Batch(0, 0, torch.randint(10, (4,)), 4, True, images)
    twin, inputs, output = pass_of_a_twin(stage, images)
    decoupler.forward(stage, batch)
    assert decoupler.learn(stage, batch)
    assert batch.take_input_gradient() is None
    at_once = [p.grad.clone() for p in stage.blocks.parameters()]
    assert any(bool(each.any()) for each in at_once)
    stage.update()
    if through_a_checkpoint:
        batch = unpack_batch(pack_batch(batch), needs_gradient=not first)
        decoupler.revive(stage, batch)
    gradient = torch.randn(4, 6)
    assert not decoupler.learn_from(stage, batch, gradient)
    output.backward(gradient)
    for early, late, true in zip(at_once, gradients(stage), gradients(twin), strict=True):
        torch.testing.assert_close(early + late, true, atol=1e-5, rtol=1e-4)
    for parameter in stage.blocks.parameters():
        assert parameter.grad.stride() == parameter.stride()
    sent_back = batch.take_input_gradient()
    assert sent_back is None if first else torch.equal(sent_back, inputs.grad)
    assert batch.stash is None


@pytest.mark.parametrize(
    "decoupler",
    [
        *(Backprop(), Delayed(), Stashed(), Delayed(predict_weights=True)),
        Local((5,), AuxiliaryConfig(), num_labels=10),
        *(Synthetic((5,), SMALL), Conditioned((5,), SMALL, num_labels=10)),
        Synthetic((5,), SynthesizerConfig(targets="true")),
        Synthetic((5,), SynthesizerConfig(targets="true", correct=True)),
    ],
    ids=lambda decoupler: type(decoupler).__name__,
)
def test_a_first_stage_with_nothing_to_learn(decoupler: Decoupler) -> None:
    stage = Stage(0, 2, nn.Sequential(nn.ReLU()), None)
    batch = Batch(0, 0, torch.randint(10, (4,)), 4, True, torch.randn(4, 5))
    decoupler.forward(stage, batch)
    decoupler.learn(stage, batch)
    stage.update()
    if decoupler.gradients_return:
        decoupler.learn_from(stage, batch, torch.randn(4, 5))
        stage.update()
    assert batch.take_input_gradient() is None


class Watched(nn.Module):
    """A layer whose own node keeps its output, as that of ReLU does."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = inputs.exp()
        self.output = weakref.ref(outputs)
        return outputs


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    "decoupler",
    [
        Stashed(),
        Synthetic((6,), SynthesizerConfig(targets="true")),
        Synthetic((6,), SynthesizerConfig(targets="true", correct=True)),
    ],
    ids=["stashed", "true", "corrected"],
)
def test_a_graph_is_freed_once_it_has_served(decoupler: Decoupler, first: bool) -> None:
    watched = Watched()
    blocks = nn.Sequential(nn.Linear(5, 6), watched, nn.Linear(6, 6))
    stage = Stage(0, 2, blocks, make_optimizer(blocks, "sgd", 0.1))
    for step in range(3):
        images = torch.randn(4, 5, requires_grad=not first)
        batch = Batch(step, 0, torch.randint(10, (4,)), 4, False, images)
        decoupler.forward(stage, batch)
        if decoupler.learn(stage, batch):
            stage.update()
        decoupler.learn_from(stage, batch, torch.randn(4, 6))
        stage.update()
        del batch
        assert watched.output() is None, "the graph still holds it"


def learn_to_predict_ones(decoupler: Synthetic) -> None:
    """Make its predictions other than the zeros that they begin with."""
    stage = make_stage()
    stage.blocks = nn.Sequential(nn.Linear(5, 6))
    batch = make_batch()
    batch.inputs = batch.inputs.detach()
    decoupler.forward(stage, batch)
    decoupler.learn(stage, batch)
    decoupler.learn_from(stage, batch, torch.ones(8, 6))


def test_a_stashed_batch_of_a_checkpoint_gets_its_graph_back() -> None:
    stage, decoupler = make_image_stage("sgd", "fp32"), Stashed()
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    batch = Batch(0, 0, torch.randint(10, (4,)), 4, True, images)
    decoupler.forward(stage, batch)
    for parameter in stage.blocks.parameters():
        parameter.grad = torch.randn_like(parameter)
    stage.update()
    copied = unpack_batch(pack_batch(batch), needs_gradient=True)
    before = copy.deepcopy(stage.blocks.state_dict())
    random_state = torch.get_rng_state()
    Stashed().revive(stage, copied)
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, value in stage.blocks.state_dict().items():
        assert torch.equal(value, before[name]), name
    found = []
    for each in (batch, copied):
        decoupler.learn_from(stage, each, torch.ones(4, 6))
        found.append([each.take_input_gradient(), *gradients(stage)])
        stage.blocks.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_microbatches_add_up_to_the_mean_loss() -> None:
    stage, whole = make_stage(num_stages=1), make_batch()
    logits = stage.forward(whole.inputs)
    functional.cross_entropy(logits, whole.labels).backward()
    expected = [p.grad.clone() for p in stage.blocks.parameters()]
    stage.blocks.zero_grad()
    decoupler = Objective()
    for rows in (slice(0, 3), slice(3, 8)):
        part = Batch(0, 0, whole.labels[rows], 8, True, whole.inputs.detach()[rows])
        decoupler.forward(stage, part)
        assert decoupler.learn(stage, part)
    for actual, want in zip(gradients(stage), expected, strict=True):
        torch.testing.assert_close(actual, want)


@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("num_labels", [0, 10])
@pytest.mark.parametrize("hidden_layers", [None, 0, 1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_first_synthetic_gradient_is_zero(
    shape: tuple[int, ...], hidden_layers: int | None, num_labels: int, convolutions: bool
) -> None:
    config = SynthesizerConfig(hidden_layers=hidden_layers, convolutions=convolutions)
    synthesizer = Synthesizer(shape, config, num_labels)
    labels = torch.randint(10, (4,))
    prediction = synthesizer(torch.randn(4, *shape), labels)
    assert prediction.shape == (4, *shape)
    assert torch.equal(prediction, torch.zeros(4, *shape))


def reach(config: SynthesizerConfig) -> Tensor:
    """Return how each value predicted for an image depends on its first pixel."""
    torch.manual_seed(0)
    synthesizer = Synthesizer((2, 6, 6), config)
    for parameter in synthesizer.parameters():
        nn.init.normal_(parameter)
    images = torch.randn(3, 2, 6, 6).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(3, dtype=torch.int64)
    other = images.clone()
    other[0, 0, 0, 0] += 1
    synthesizer.eval()  # in training, normalization joins the images
    return (synthesizer(other, labels) - synthesizer(images, labels)).abs()


def test_fully_connected_synthesizers_see_the_whole_image() -> None:
    sizes = {"hidden_layers": 1, "hidden_units": 8, "kernel_size": 3}
    near = reach(SynthesizerConfig(**sizes))[0].sum(0) > 0
    assert bool(near[:3, :3].all())
    assert not bool(near[3:, 3:].any())
    far = reach(SynthesizerConfig(**sizes, convolutions=False))
    assert bool((far[0] > 0).all())
    assert not bool(far[1:].any())


def learn_to_predict(decoupler: Any, rounds: int = 300) -> dict[str, float]:
    """Teach gradients that depend on the labels, and return the last metrics."""
    stage = make_stage()
    stage.optimizer = None
    table = torch.randn(10, 12)
    for round_ in range(rounds):
        torch.manual_seed(round_)
        labels = torch.randint(10, (32,))
        batch = Batch(0, 0, labels, 32, True, torch.randn(32, 5))
        decoupler.forward(stage, batch)
        target = batch.output.detach() + table[labels]
        assert decoupler.learn(stage, batch)
        assert not decoupler.learn_from(stage, batch, target / 32)
        stage.blocks.zero_grad()
    return {name: float(value) for name, value in decoupler.metrics.items()}


def test_a_synthesizer_that_sees_labels_learns_what_depends_on_them() -> None:
    torch.manual_seed(0)
    config = SynthesizerConfig(hidden_layers=0, learning_rate=0.03)
    blind = learn_to_predict(Synthetic((12,), config))
    seeing = learn_to_predict(Conditioned((12,), config, num_labels=10))
    assert seeing["cosine_similarity"] > 0.99 > blind["cosine_similarity"]
    assert seeing["norm_ratio"] == pytest.approx(1, abs=0.05)
    assert seeing["synthesizer_loss"] < blind["synthesizer_loss"] / 10


def test_a_stage_learns_at_once_from_the_synthetic_gradient() -> None:
    stage, batch = make_stage(), make_batch()
    decoupler = Synthetic((12,), SMALL)
    for parameter in decoupler.modules.parameters():
        nn.init.normal_(parameter)
    decoupler.forward(stage, batch)
    hidden = batch.output.detach()
    with torch.no_grad():
        prediction = copy.deepcopy(decoupler.modules[0])(hidden, batch.labels)
    expected = true_gradients(stage, batch, prediction / 8)
    assert decoupler.learn(stage, batch)
    actual = [batch.take_input_gradient(), *gradients(stage)]
    for one, want in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, want)


def trained_share(depends_on_output: bool) -> float:
    """Return the share after 300 gradients, which the output tells or does not."""
    torch.manual_seed(0)
    decoupler = Synthetic((12,), SynthesizerConfig(hidden_layers=0, learning_rate=0.01))
    stage = make_stage()
    shares = []
    for round_ in range(300):
        torch.manual_seed(round_)
        batch = Batch(0, 0, torch.randint(10, (32,)), 32, False, torch.randn(32, 5))
        decoupler.forward(stage, batch)
        decoupler.learn(stage, batch)
        shares.append(decoupler.update_share)
        target = batch.output if depends_on_output else torch.randn(32, 12)
        decoupler.learn_from(stage, batch, target.detach() / 32)
        stage.blocks.zero_grad()
    assert shares[0] == 0
    return shares[-1]


def test_a_stage_moves_as_far_as_its_synthesizer_is_right() -> None:
    assert trained_share(depends_on_output=True) > 0.9
    assert trained_share(depends_on_output=False) < 0.05


def test_as_published_a_stage_moves_at_its_full_rate() -> None:
    config = SynthesizerConfig(hidden_layers=0, trust=False)
    stage, batch, decoupler = make_stage(), make_batch(), Synthetic((12,), config)
    decoupler.forward(stage, batch)
    decoupler.learn(stage, batch)
    assert decoupler.update_share == 1
    assert len(decoupler.modules) == 1


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam"])
def test_a_share_is_of_this_update_only(name: Any) -> None:
    stage = make_stage()
    stage.optimizer = make_optimizer(stage.blocks, name, 0.1)
    moved = []
    for share in (1.0, 0.25):
        before = torch.cat([p.detach().flatten() for p in stage.blocks.parameters()])
        for parameter in stage.blocks.parameters():
            parameter.grad = torch.ones_like(parameter)
        if name == "momentum":
            stage.optimizer.state.clear()
        stage.update(share)
        after = torch.cat([p.detach().flatten() for p in stage.blocks.parameters()])
        moved.append(after - before)
        assert all(group["lr"] == 0.1 for group in stage.optimizer.param_groups)
    torch.testing.assert_close(moved[1], moved[0] / 4)


def test_comparing_gradients() -> None:
    ones = torch.ones(3, 4)
    same = compare(2 * ones, ones)
    assert float(same["cosine_similarity"]) == pytest.approx(1)
    assert float(same["norm_ratio"]) == pytest.approx(2)
    zero = compare(torch.zeros(3, 4), ones)
    assert (float(zero["cosine_similarity"]), float(zero["norm_ratio"])) == (0, 0)
    images = torch.randn(2, 3, 4, 5)
    other = images.to(memory_format=torch.channels_last)
    assert float(compare(images, other)["cosine_similarity"]) == pytest.approx(1)


@pytest.mark.parametrize("loss", ["classifier", "predsim"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_local_losses_of_all_shapes(shape: tuple[int, ...], loss: Any) -> None:
    for hidden_units in (0, 16):
        config = AuxiliaryConfig(loss=loss, hidden_units=hidden_units)
        local = AuxiliaryLoss(shape, 10, config)
        activation = torch.randn(8, *shape, requires_grad=True)
        value = local(activation, torch.randint(10, (8,)))
        value.backward()
        assert value.shape == ()
        assert activation.grad.isfinite().all()
        assert activation.grad.any()
        assert all(p.grad is not None for p in local.parameters())


@pytest.mark.parametrize("loss", ["classifier", "predsim"])
def test_a_local_loss_trains_its_stage(loss: Any) -> None:
    torch.manual_seed(0)
    stage = make_stage()
    config = AuxiliaryConfig(loss=loss, learning_rate=0.01)
    decoupler = Local((12,), config, num_labels=10)
    losses = []
    for _ in range(150):
        batch = make_batch(32)
        batch.labels = batch.inputs.argmax(1)
        decoupler.forward(stage, batch)
        assert decoupler.learn(stage, batch)
        stage.update()
        losses.append(float(decoupler.metrics["loss"]))
    assert losses[-1] < losses[0] / 3


def test_similarities_are_cosines_around_the_mean() -> None:
    values = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 1]])
    expected = torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]])
    torch.testing.assert_close(similarity_matrix(values), expected)
    torch.testing.assert_close(similarity_matrix(7 * values + 3), expected)


def test_gradients_that_nobody_expects() -> None:
    stage, batch = make_stage(), make_batch()
    local = Local((12,), AuxiliaryConfig(), num_labels=10)
    for decoupler in (Objective(), local):
        with pytest.raises(ValueError, match="expected no gradient"):
            decoupler.learn_from(stage, batch, torch.ones(8, 12))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SynthesizerConfig(kernel_size=4), "expected an odd number, got 4"),
        (lambda: SynthesizerConfig(hidden_layers=-1), "at least 0, got -1"),
        (lambda: SynthesizerConfig(correct=True), "targets 'true', got 'bootstrapped'"),
        (lambda: AuxiliaryConfig(learning_rate=0), "learning_rate: expected > 0"),
        (lambda: Synthesizer((3, 4), SMALL), r"expected \[features\] or \[c, h, w\]"),
        (lambda: Conditioned((3,), SMALL, 0), "num_labels: expected at least 1"),
        (lambda: make_optimizer(nn.Linear(2, 2), "lamb", 0.1), "got 'lamb'"),
        (lambda: Stage(2, 2, nn.Sequential(nn.ReLU()), None), "expected 0 to 1, got 2"),
        (lambda: Stage(0, 2, nn.Sequential(), None), "at least one block, got none"),
    ],
)
def test_settings_that_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

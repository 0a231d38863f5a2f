"""Local losses."""

from typing import Any

import pytest
import torch

from knet_hvd.pipeline.decouplers import Local
from knet_hvd.pipeline.decouplers.local_loss import LocalLoss, similarity_matrix
from tests.single.pipeline.stages import make_batch, make_stage

SHAPES = [(12,), (6, 4, 4), (6, 1, 1), (7, 12)]


@pytest.mark.parametrize("similarities", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_local_losses_of_all_shapes(shape: tuple[int, ...], similarities: bool) -> None:
    for hidden_units in (0, 16):
        local = LocalLoss(shape, 10, hidden_units, similarities=similarities)
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
    source = Local(loss=loss, learning_rate=0.01).build((12,), 10)
    losses = []
    for _ in range(150):
        batch = make_batch(32)
        batch.targets = batch.inputs.argmax(1)
        source.forward(stage, batch)
        assert source.backward_now(stage, batch)
        stage.update()
        losses.append(float(source.metrics["loss"]))
    assert losses[-1] < losses[0] / 3


def test_a_label_at_each_position_of_a_sequence() -> None:
    """Each position is judged by its own target, and by nothing else."""
    torch.manual_seed(0)
    local = LocalLoss((5, 12), 10, 16)
    activation, targets = torch.randn(3, 5, 12), torch.randint(10, (3, 5))
    one_by_one = [
        LocalLoss.forward(local, activation[i, t].expand(1, 1, 12), targets[i, t].expand(1, 1))
        for i in range(3)
        for t in range(5)
    ]
    torch.testing.assert_close(local(activation, targets), torch.stack(one_by_one).mean())


def test_similarities_are_cosines_around_the_mean() -> None:
    values = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 1]])
    expected = torch.tensor([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]])
    torch.testing.assert_close(similarity_matrix(values), expected)
    torch.testing.assert_close(similarity_matrix(7 * values + 3), expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Local(learning_rate=0), "learning_rate: expected > 0"),
        (lambda: Local(hidden_units=-1), "hidden_units: expected at least 0, got -1"),
        (lambda: Local().build((12,), None), "local: needs targets that are classes"),
        (lambda: Local().build((2, 3, 4, 5), 10), r"got \[2, 3, 4, 5\]"),
        (
            lambda: LocalLoss((12,), 10, 0)(torch.randn(2, 12), torch.zeros(2, 3).long()),
            r"targets: expected one for each sample, .* got \[2, 3\] for activations \[2, 12\]",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

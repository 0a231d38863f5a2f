"""Synthesizers: shapes, the first prediction, and what they see."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from knet_hvd.pipeline.decouplers.synthetic.synthesizer import Synthesizer, SynthesizerLayers

SHAPES = [(12,), (6, 4, 4), (6, 1, 1), (7, 12)]


@pytest.mark.parametrize("convolutions", [True, False])
@pytest.mark.parametrize("num_classes", [0, 10])
@pytest.mark.parametrize("hidden_layers", [None, 0, 1, 3])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_first_synthetic_gradient_is_zero(
    shape: tuple[int, ...], hidden_layers: int | None, num_classes: int, convolutions: bool
) -> None:
    layers = SynthesizerLayers(hidden_layers=hidden_layers, convolutions=convolutions)
    synthesizer = Synthesizer(shape, layers, num_classes)
    targets = torch.randint(10, (4,))
    prediction = synthesizer(torch.randn(4, *shape), targets)
    assert prediction.shape == (4, *shape)
    assert torch.equal(prediction, torch.zeros(4, *shape))


def reach(layers: SynthesizerLayers) -> Tensor:
    """Return how each value predicted for an image depends on its first pixel."""
    torch.manual_seed(0)
    synthesizer = Synthesizer((2, 6, 6), layers)
    for parameter in synthesizer.parameters():
        nn.init.normal_(parameter)
    images = torch.randn(3, 2, 6, 6).contiguous(memory_format=torch.channels_last)
    targets = torch.zeros(3, dtype=torch.int64)
    other = images.clone()
    other[0, 0, 0, 0] += 1
    synthesizer.eval()  # in training, normalization joins the images
    return (synthesizer(other, targets) - synthesizer(images, targets)).abs()


def test_fully_connected_synthesizers_see_the_whole_image() -> None:
    sizes = {"hidden_layers": 1, "hidden_units": 8, "kernel_size": 3}
    near = reach(SynthesizerLayers(**sizes))[0].sum(0) > 0
    assert bool(near[:3, :3].all())
    assert not bool(near[3:, 3:].any())
    far = reach(SynthesizerLayers(**sizes, convolutions=False))
    assert bool((far[0] > 0).all())
    assert not bool(far[1:].any())


def test_a_sequence_is_predicted_position_by_position() -> None:
    """With a target for each sequence, or for each position."""
    torch.manual_seed(0)
    synthesizer = Synthesizer((3, 4), SynthesizerLayers(hidden_layers=0), num_classes=10)
    nn.init.normal_(next(synthesizer.parameters()))
    activation, targets = torch.randn(2, 3, 4), torch.tensor([[1, 5, 9], [0, 0, 3]])
    alone = Synthesizer((4,), SynthesizerLayers(hidden_layers=0), num_classes=10)
    alone.load_state_dict(synthesizer.state_dict())
    expected = torch.stack([alone(activation[:, t], targets[:, t]) for t in range(3)], dim=1)
    torch.testing.assert_close(synthesizer(activation, targets), expected)
    same = targets[:, :1].expand(2, 3)
    assert torch.equal(synthesizer(activation, targets[:, 0]), synthesizer(activation, same))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SynthesizerLayers(kernel_size=4), "expected an odd number, got 4"),
        (lambda: SynthesizerLayers(hidden_layers=-1), "at least 0, got -1"),
        (lambda: SynthesizerLayers(hidden_units=0), "hidden_units: expected at least 1, got 0"),
        (lambda: Synthesizer((2, 3, 4, 5), SynthesizerLayers()), r"got \[2, 3, 4, 5\]"),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

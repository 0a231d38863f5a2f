"""Shapes of the gradients of well-known networks, in the order of their layers.

What an exchange costs depends on the shapes alone, so the networks need not be built.
"""

import itertools
import math
from collections.abc import Iterator

Shapes = list[tuple[str, tuple[int, ...]]]


def _layers(layers: list[tuple[str, tuple[int, ...]]]) -> Shapes:
    """Return a weight and a bias for every layer of weights."""
    return [
        entry
        for name, shape in layers
        for entry in ((f"{name}.weight", shape), (f"{name}.bias", (shape[0],)))
    ]


def lenet() -> Shapes:
    """Return LeNet's, 0.43 M values, as in Caffe."""
    convolutions = [("conv1", (20, 1, 5, 5)), ("conv2", (50, 20, 5, 5))]
    return _layers([*convolutions, ("fc1", (500, 800)), ("fc2", (10, 500))])


def alexnet() -> Shapes:
    """Return AlexNet's, 61 M values: two groups in the 2nd, 4th and 5th convolution."""
    return _layers(
        [
            ("conv1", (96, 3, 11, 11)),
            ("conv2", (256, 48, 5, 5)),
            ("conv3", (384, 256, 3, 3)),
            ("conv4", (384, 192, 3, 3)),
            ("conv5", (256, 192, 3, 3)),
            ("fc6", (4096, 9216)),
            ("fc7", (4096, 4096)),
            ("fc8", (1000, 4096)),
        ]
    )


def vgg16() -> Shapes:
    """Return VGG-16's, 138 M values."""
    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    convolutions: Shapes = [
        (f"conv{number}", (after, before, 3, 3))
        for number, (before, after) in enumerate(itertools.pairwise(widths), 1)
    ]
    heads = [("fc1", (4096, 25088)), ("fc2", (4096, 4096)), ("fc3", (1000, 4096))]
    return _layers([*convolutions, *heads])


def resnet50() -> Shapes:
    """Return ResNet-50's, 25.6 M values in 161 tensors."""
    shapes = [*_normalized("conv1", (64, 3, 7, 7))]
    before = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes += _normalized(f"{name}.conv1", (width, before, 1, 1))
            shapes += _normalized(f"{name}.conv2", (width, width, 3, 3))
            shapes += _normalized(f"{name}.conv3", (4 * width, width, 1, 1))
            if block == 0:
                shapes += _normalized(f"{name}.down", (4 * width, before, 1, 1))
            before = 4 * width
    return [*shapes, *_layers([("fc", (1000, 2048))])]


def _normalized(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple]]:
    """Yield a convolution without bias, and the two of its batch normalization."""
    yield f"{name}.weight", shape
    yield f"{name}.norm.weight", (shape[0],)
    yield f"{name}.norm.bias", (shape[0],)


GRADIENT_SETS = {"lenet": lenet, "resnet50": resnet50, "alexnet": alexnet, "vgg16": vgg16}


def num_values(shapes: Shapes) -> int:
    """Return the values of all tensors."""
    return sum(math.prod(shape) for _, shape in shapes)

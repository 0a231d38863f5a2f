"""The 4-layer and the 8-layer network of the KnowledgeNet experiments.

Source: Biookaghazadeh et al., "KnowledgeNet: Disaggregated and Distributed Training
and Serving of Deep Neural Networks" (OpML 2019), which trains on MNIST a 4-layer
network, "one convolution and three fully connected", and an 8-layer one. It gives
neither sizes nor the kinds of the 8 layers: these are this package's own choice, with
the 8 layers half convolutions, half fully connected.

| block of mnist4 | layers at width 1.0                               | on 28x28x1   |
|-----------------|---------------------------------------------------|--------------|
| conv1           | convolution 5x5, 32; ReLU; max pooling 2x2/2      | [32, 14, 14] |
| fc2             | flatten; fully connected 256; ReLU                | [256]        |
| fc3             | fully connected 256; ReLU                         | [256]        |
| logits          | fully connected, one output a class               | [10]         |

| block of mnist8 | layers at width 1.0                               | on 28x28x1   |
|-----------------|---------------------------------------------------|--------------|
| conv1           | convolution 3x3, 32; ReLU                         | [32, 28, 28] |
| conv2           | convolution 3x3, 32; ReLU; max pooling 2x2/2      | [32, 14, 14] |
| conv3           | convolution 3x3, 64; ReLU                         | [64, 14, 14] |
| conv4           | convolution 3x3, 64; ReLU; max pooling 2x2/2      | [64, 7, 7]   |
| fc5             | flatten; fully connected 256; ReLU                | [256]        |
| fc6             | fully connected 256; ReLU                         | [256]        |
| fc7             | fully connected 128; ReLU                         | [128]        |
| logits          | fully connected, one output a class               | [10]         |

Convolutions pad so that the size stays. 1,675,082 and 968,042 parameters on 28x28x1
images with 10 classes.
"""

from collections.abc import Mapping

from torch import nn

from knet_hvd.models.blocks import (
    Shape,
    check_image_size,
    init_kaiming,
    init_normal,
    named_blocks,
    num_features,
    scaled,
)

Blocks = dict[str, list[nn.Module]]


def mnist4(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build one convolution and three fully connected layers (KnowledgeNet 2019).

    Args:
        in_shape: Channels, height and width of an image, at least 2x2 pixels.
        num_classes: The number of logits.
        width: The factor on channels and hidden units.

    Returns:
        Four blocks, from float images [n, c, h, w] to logits [n, classes].

    Raises:
        ValueError: The image is smaller than 2x2 pixels.
    """
    check_image_size(in_shape, minimum=2, model="mnist4")
    convolutions = {"conv1": _conv(in_shape[0], scaled(32, width), 5, pool=True)}
    hidden = {name: scaled(256, width) for name in ("fc2", "fc3")}
    return _network(convolutions, hidden, in_shape, num_classes)


def mnist8(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build four convolutions and four fully connected layers (KnowledgeNet 2019).

    Args:
        in_shape: Channels, height and width of an image, at least 4x4 pixels.
        num_classes: The number of logits.
        width: The factor on channels and hidden units.

    Returns:
        Eight blocks, from float images [n, c, h, w] to logits [n, classes].

    Raises:
        ValueError: The image is smaller than 4x4 pixels.
    """
    check_image_size(in_shape, minimum=4, model="mnist8")
    narrow, wide = scaled(32, width), scaled(64, width)
    convolutions = {
        "conv1": _conv(in_shape[0], narrow, 3, pool=False),
        "conv2": _conv(narrow, narrow, 3, pool=True),
        "conv3": _conv(narrow, wide, 3, pool=False),
        "conv4": _conv(wide, wide, 3, pool=True),
    }
    hidden = {"fc5": 256, "fc6": 256, "fc7": 128}
    hidden = {name: scaled(units, width) for name, units in hidden.items()}
    return _network(convolutions, hidden, in_shape, num_classes)


def _conv(num_in: int, num_out: int, size: int, *, pool: bool) -> list[nn.Module]:
    """Return one convolution that keeps the size, its ReLU and any pooling."""
    convolution = nn.Conv2d(num_in, num_out, size, padding=size // 2)
    layers: list[nn.Module] = [convolution, nn.ReLU()]
    return [*layers, nn.MaxPool2d(2)] if pool else layers


def _network(
    convolutions: Blocks, hidden: Mapping[str, int], in_shape: Shape, num_classes: int
) -> nn.Sequential:
    """Add fully connected layers to convolutions, and draw all weights."""
    layers = [layer for block in convolutions.values() for layer in block]
    num_in = num_features(layers, in_shape)
    blocks = dict(convolutions)
    start: list[nn.Module] = [nn.Flatten()]
    for name, units in hidden.items():
        blocks[name] = [*start, nn.Linear(num_in, units), nn.ReLU()]
        start, num_in = [], units
    logits = nn.Linear(num_in, num_classes)
    blocks["logits"] = [logits]
    model = named_blocks(blocks)
    init_kaiming(model)
    init_normal(logits, std=0.01)
    return model

"""AlexNet for 32x32 images.

Source: Krizhevsky, "One weird trick for parallelizing convolutional neural
networks" (arXiv 1404.5997), the one-column form of Krizhevsky et al. (NIPS
2012), with batch normalization (Ioffe and Szegedy 2015) after convolutions, as
TernGrad's experiments add it (Wen et al. 2017). Kernels and strides are reduced
for small images; the channels and the wide fully connected layers, which hold
nine tenths of the gradient, are kept.

| block  | layers at width 1.0                             | on 32x32x3  |
|--------|-------------------------------------------------|-------------|
| conv1  | convolution 3x3/2, 64; ReLU; max pooling 2x2/2  | [64, 8, 8]  |
| conv2  | convolution 3x3, 192; ReLU; max pooling 2x2/2   | [192, 4, 4] |
| conv3  | convolution 3x3, 384; ReLU                      | [384, 4, 4] |
| conv4  | convolution 3x3, 256; ReLU                      | [256, 4, 4] |
| conv5  | convolution 3x3, 256; ReLU; max pooling 2x2/2   | [256, 2, 2] |
| fc6    | flatten; dropout 0.5; fully connected 4096; ReLU| [4096]      |
| fc7    | dropout 0.5; fully connected 4096; ReLU         | [4096]      |
| logits | fully connected, one output a class             | [10]        |

Each convolution is followed by batch normalization (hence no bias) before its
ReLU. 23,273,418 parameters on 32x32x3 images with 10 classes.
Weights of fc6 and fc7 are normal, cut at two standard deviations of 0.005, with
biases of 0.1, as in TernGrad's scripts: larger ones do not start to learn.
"""

from torch import nn

from knet_hvd.models.blocks import (
    Shape,
    init_kaiming,
    init_normal,
    init_truncated_normal,
    named_blocks,
    num_features,
    pad_to,
    scaled,
)


def alexnet(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build AlexNet for small images (Krizhevsky 2014).

    Images below 32x32 pixels are padded with zeros to that size in the first
    block.

    Args:
        in_shape: Channels, height and width of an image, of any size.
        num_classes: The number of logits.
        width: The factor on channels and hidden units.

    Returns:
        Eight blocks, from float images [n, c, h, w] to logits [n, classes].
    """
    c1, c2, c3, c4, c5 = (scaled(n, width) for n in (64, 192, 384, 256, 256))
    hidden = scaled(4096, width)
    blocks: dict[str, list[nn.Module]] = {
        "conv1": [*pad_to(in_shape, 32), *_conv(in_shape[0], c1, stride=2, pool=True)],
        "conv2": _conv(c1, c2, pool=True),
        "conv3": _conv(c2, c3),
        "conv4": _conv(c3, c4),
        "conv5": _conv(c4, c5, pool=True),
    }
    features = num_features([layer for layers in blocks.values() for layer in layers], in_shape)
    fc6, fc7 = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
    logits = nn.Linear(hidden, num_classes)
    blocks["fc6"] = [nn.Flatten(), nn.Dropout(0.5), fc6, nn.ReLU()]
    blocks["fc7"] = [nn.Dropout(0.5), fc7, nn.ReLU()]
    blocks["logits"] = [logits]
    model = named_blocks(blocks)
    init_kaiming(model)
    for layer in (fc6, fc7):
        init_truncated_normal(layer, std=0.005, bias=0.1)
    init_normal(logits, std=0.01)
    return model


def _conv(num_in: int, num_out: int, *, stride: int = 1, pool: bool = False) -> list[nn.Module]:
    """Return one 3x3 convolution with its normalization, ReLU and any pooling."""
    layers: list[nn.Module] = [
        nn.Conv2d(num_in, num_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU(),
    ]
    return [*layers, nn.MaxPool2d(2)] if pool else layers

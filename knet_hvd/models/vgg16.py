"""VGG-16 with batch normalization for 32x32 images.

Sources: Simonyan and Zisserman, "Very Deep Convolutional Networks for
Large-Scale Image Recognition" (ICLR 2015), configuration D; Ioffe and Szegedy,
"Batch Normalization" (ICML 2015).

| blocks             | layers at width 1.0                  | on 32x32x3   |
|--------------------|--------------------------------------|--------------|
| conv1_1 to conv1_2 | 2 convolutions 3x3, 64; max pooling  | [64, 16, 16] |
| conv2_1 to conv2_2 | 2 convolutions 3x3, 128; max pooling | [128, 8, 8]  |
| conv3_1 to conv3_3 | 3 convolutions 3x3, 256; max pooling | [256, 4, 4]  |
| conv4_1 to conv4_3 | 3 convolutions 3x3, 512; max pooling | [512, 2, 2]  |
| conv5_1 to conv5_3 | 3 convolutions 3x3, 512; max pooling | [512, 1, 1]  |
| logits             | mean over positions; fully connected | [10]         |

Each convolution is a block of its own, with batch normalization (hence no
bias), ReLU, and for the last of its group max pooling 2x2/2. One layer stands
for the paper's three fully connected ones, as is usual for small images.
14.7 million parameters at width 1.0, 8.3 at 0.75, 3.7 at 0.5.
"""

from torch import nn

from knet_hvd.models.blocks import Shape, init_kaiming, init_normal, named_blocks, pad_to, scaled

_GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vgg16(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build VGG-16 with batch normalization (Simonyan and Zisserman 2015).

    Images below 32x32 pixels, as MNIST's, are padded with zeros to that size
    in the first block.

    Args:
        in_shape: Channels, height and width of an image, of any size.
        num_classes: The number of logits.
        width: The factor on the channels.

    Returns:
        Fourteen blocks, from float images [n, c, h, w] to logits [n, classes].
    """
    blocks: dict[str, list[nn.Module]] = {}
    layers = pad_to(in_shape, 32)
    num_in = in_shape[0]
    for group, (channels, depth) in enumerate(_GROUPS, start=1):
        num_out = scaled(channels, width)
        for index in range(1, depth + 1):
            layers += _conv_layers(num_in, num_out, pool=index == depth)
            blocks[f"conv{group}_{index}"] = layers
            layers, num_in = [], num_out
    logits = nn.Linear(num_in, num_classes)
    blocks["logits"] = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), logits]
    model = named_blocks(blocks)
    init_kaiming(model)
    init_normal(logits, std=0.01)
    return model


def _conv_layers(num_in: int, num_out: int, *, pool: bool) -> list[nn.Module]:
    """Return one convolution with its normalization, ReLU and any pooling."""
    layers: list[nn.Module] = [
        nn.Conv2d(num_in, num_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(num_out),
        nn.ReLU(),
    ]
    return [*layers, nn.MaxPool2d(2)] if pool else layers

"""ResNet-20 for 32x32 images.

Source: He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), section
4.2, with n = 3: convolutions of 16, 32 and 64 channels in three groups of three residual
units. Where the shape changes, the shortcut is a 1x1 convolution with batch
normalization (their option B; the paper's networks for CIFAR-10 have option A, which
pads with zero channels).

| blocks             | layers at width 1.0                  | on 32x32x3   |
|--------------------|--------------------------------------|--------------|
| conv1              | convolution 3x3, 16; ReLU            | [16, 32, 32] |
| conv2_1 to conv2_3 | 3 residual units, 16                 | [16, 32, 32] |
| conv3_1 to conv3_3 | 3 residual units, 32, the first by 2 | [32, 16, 16] |
| conv4_1 to conv4_3 | 3 residual units, 64, the first by 2 | [64, 8, 8]   |
| logits             | mean over positions; fully connected | [10]         |

A unit is two 3x3 convolutions beside its shortcut, each followed by batch normalization
(hence no bias) and ReLU, the second ReLU after the sum. All weights are drawn as He et
al. (2015) do, as the paper says. 272,474 parameters on 32x32x3 images with 10 classes.
"""

from torch import Tensor, nn
from torch.nn import functional

from knet_hvd.models.blocks import Shape, init_kaiming, named_blocks, scaled

_GROUPS = ((2, 16), (3, 32), (4, 64))
_UNITS = 3


def resnet20(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build ResNet-20 with option B shortcuts (He et al. 2016, section 4.2).

    Args:
        in_shape: Channels, height and width of an image, of any size.
        num_classes: The number of logits.
        width: The factor on the channels.

    Returns:
        Eleven blocks, from float images [n, c, h, w] to logits [n, classes].
    """
    num_in = scaled(_GROUPS[0][1], width)
    first: list[nn.Module] = [*_conv(in_shape[0], num_in), nn.ReLU()]
    blocks: dict[str, list[nn.Module]] = {"conv1": first}
    for group, channels in _GROUPS:
        for unit in range(1, _UNITS + 1):
            stride = 2 if group > 2 and unit == 1 else 1
            num_out = scaled(channels, width)
            blocks[f"conv{group}_{unit}"] = [ResidualUnit(num_in, num_out, stride)]
            num_in = num_out
    blocks["logits"] = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(num_in, num_classes)]
    model = named_blocks(blocks)
    init_kaiming(model)
    return model


class ResidualUnit(nn.Module):
    """Add two convolutions to their input (He et al. 2016, figure 2)."""

    def __init__(self, num_in: int, num_out: int, stride: int) -> None:
        """Build the layers; the shortcut has some only where the shape changes.

        Args:
            num_in: Channels of the input.
            num_out: Channels of the output.
            stride: Of the first convolution and of the shortcut.
        """
        super().__init__()
        self.residual = nn.Sequential(
            *_conv(num_in, num_out, stride), nn.ReLU(), *_conv(num_out, num_out)
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or num_in != num_out:
            self.shortcut.extend(_conv(num_in, num_out, stride, size=1))

    def forward(self, images: Tensor) -> Tensor:
        """Return [n, num_out, h / stride, w / stride] for images [n, num_in, h, w]."""
        return functional.relu(self.residual(images) + self.shortcut(images))


def _conv(num_in: int, num_out: int, stride: int = 1, size: int = 3) -> list[nn.Module]:
    """Return a convolution that keeps the size, up to its stride, and its normalization."""
    convolution = nn.Conv2d(num_in, num_out, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(num_out)]

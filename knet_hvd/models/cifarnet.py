"""CifarNet of TensorFlow's tutorial, the network of TernGrad's CIFAR-10 runs.

Sources: TensorFlow's "Convolutional Neural Networks" tutorial (`cifar10.py`),
after Krizhevsky's cuda-convnet; Wen et al., "TernGrad" (NIPS 2017), whose
scripts call it `cifar10_alexnet` and feed it 24x24 crops.

| block  | layers at width 1.0                             | on 32x32x3   |
|--------|-------------------------------------------------|--------------|
| conv1  | convolution 5x5, 64; ReLU; max pooling 3x3/2;   | [64, 16, 16] |
|        | local response normalization                    |              |
| conv2  | convolution 5x5, 64; ReLU; local response       | [64, 8, 8]   |
|        | normalization; max pooling 3x3/2                |              |
| fc3    | flatten; fully connected 384; ReLU              | [384]        |
| fc4    | fully connected 192; ReLU                       | [192]        |
| logits | fully connected, one output a class             | [10]         |

1,756,426 parameters on 32x32x3 images with 10 classes (1,068,298 on 24x24x3).
Weights are normal, cut at two standard deviations of 0.05 (convolutions), 0.04
(fc3, fc4) and 1/192 (logits); biases are 0 (conv1, logits) or 0.1.
The tutorial decays the weights of fc3 and fc4 only (0.004): that is the
optimizer's part.
"""

from torch import nn

from knet_hvd.models.blocks import (
    Shape,
    check_image_size,
    init_truncated_normal,
    named_blocks,
    num_features,
    scaled,
)
from knet_hvd.models.response_norm import ResponseNorm


def cifarnet(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build the CifarNet of TensorFlow's tutorial (Wen et al. 2017).

    Args:
        in_shape: Channels, height and width of an image, at least 4x4 pixels.
            Pooling agrees with TensorFlow's "SAME" where sizes are even.
        num_classes: The number of logits.
        width: The factor on channels and hidden units.

    Returns:
        Five blocks, from float images [n, c, h, w] to logits [n, classes].

    Raises:
        ValueError: The image is smaller than 4x4 pixels.
    """
    check_image_size(in_shape, minimum=4, model="cifarnet")
    channels, hidden3, hidden4 = (scaled(n, width) for n in (64, 384, 192))
    first = _conv(in_shape[0], channels, bias=0.0)
    second = _conv(channels, channels, bias=0.1)
    conv1 = [first, nn.ReLU(), _pool(), _response_norm()]
    conv2 = [second, nn.ReLU(), _response_norm(), _pool()]
    features = num_features([*conv1, *conv2], in_shape)
    fc3 = _linear(features, hidden3, std=0.04, bias=0.1)
    fc4 = _linear(hidden3, hidden4, std=0.04, bias=0.1)
    logits = _linear(hidden4, num_classes, std=1 / 192, bias=0.0)
    return named_blocks(
        {
            "conv1": conv1,
            "conv2": conv2,
            "fc3": [nn.Flatten(), fc3, nn.ReLU()],
            "fc4": [fc4, nn.ReLU()],
            "logits": [logits],
        }
    )


def _pool() -> nn.MaxPool2d:
    """Return the 3x3/2 pooling that halves even sizes, as "SAME" does."""
    # Rounding up makes the last window overhang by one pixel on the right and
    # below, which is where TensorFlow puts its padding.
    return nn.MaxPool2d(3, stride=2, ceil_mode=True)


def _response_norm() -> ResponseNorm:
    """Return TensorFlow's `lrn(depth_radius=4, bias=1, alpha=0.001/9)`."""
    # torch divides alpha by the window's size, 2 * 4 + 1; TensorFlow does not.
    return ResponseNorm(9, alpha=0.001, beta=0.75, k=1.0)


def _conv(num_in: int, num_out: int, bias: float) -> nn.Conv2d:
    """Return a 5x5 convolution that keeps the size, with the initial values."""
    layer = nn.Conv2d(num_in, num_out, 5, padding=2)
    init_truncated_normal(layer, std=0.05, bias=bias)
    return layer


def _linear(num_in: int, num_out: int, std: float, bias: float) -> nn.Linear:
    """Return a fully connected layer with the tutorial's initial values."""
    layer = nn.Linear(num_in, num_out)
    init_truncated_normal(layer, std=std, bias=bias)
    return layer

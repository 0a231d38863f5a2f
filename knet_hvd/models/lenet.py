"""LeNet as in Caffe, the network of TernGrad's MNIST experiments.

Sources: LeCun et al., "Gradient-Based Learning Applied to Document
Recognition" (Proc. IEEE 1998); Caffe's `examples/mnist/lenet_train_test`;
Wen et al., "TernGrad" (NIPS 2017).

| block  | layers at width 1.0                        | on 28x28x1    |
|--------|--------------------------------------------|---------------|
| conv1  | convolution 5x5, 20; max pooling 2x2/2     | [20, 12, 12]  |
| conv2  | convolution 5x5, 50; max pooling 2x2/2     | [50, 4, 4]    |
| fc3    | flatten; fully connected 500; ReLU         | [500]         |
| logits | fully connected, one output a class        | [10]          |

431,080 parameters on 28x28x1 images with 10 classes. As in Caffe, the ReLU
after fc3 is the only one, and weights are uniform of variance 1 / fan_in.
TernGrad's TensorFlow script names this file as its source, but pads the
convolutions and adds a ReLU to each; this is Caffe's own form.
"""

import math

from torch import nn

from knet_hvd.models.blocks import Shape, check_image_size, named_blocks, num_features, scaled

_UNPADDED_MIN_SIZE = 20


def lenet(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build Caffe's LeNet (LeCun et al. 1998; Wen et al. 2017).

    Images below 20 pixels in height or width would vanish in two unpadded
    convolutions, so for them both convolutions pad by 2 and keep the size.

    Args:
        in_shape: Channels, height and width of an image, at least 4x4 pixels.
        num_classes: The number of logits.
        width: The factor on channels and hidden units.

    Returns:
        Four blocks, from float images [n, c, h, w] to logits [n, classes].

    Raises:
        ValueError: The image is smaller than 4x4 pixels.
    """
    check_image_size(in_shape, minimum=4, model="lenet")
    padding = 2 if min(in_shape[1:]) < _UNPADDED_MIN_SIZE else 0
    channels1, channels2, hidden = (scaled(n, width) for n in (20, 50, 500))
    conv1 = [nn.Conv2d(in_shape[0], channels1, 5, padding=padding), nn.MaxPool2d(2)]
    conv2 = [nn.Conv2d(channels1, channels2, 5, padding=padding), nn.MaxPool2d(2)]
    features = num_features([*conv1, *conv2], in_shape)
    fc3 = [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU()]
    logits = [nn.Linear(hidden, num_classes)]
    model = named_blocks({"conv1": conv1, "conv2": conv2, "fc3": fc3, "logits": logits})
    _init_caffe(model)
    return model


def _init_caffe(model: nn.Module) -> None:
    """Draw weights as Caffe's "xavier" filler does: uniform, +-sqrt(3 / fan_in)."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            bound = math.sqrt(3 / layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

"""A multilayer perceptron with two hidden layers.

Source of the form: the two-hidden-layer networks of LeCun et al.,
"Gradient-Based Learning Applied to Document Recognition" (Proc. IEEE 1998),
with ReLU for their squashing function; the sizes are this package's own.

| block  | layers at width 1.0                  | on 28x28x1 |
|--------|--------------------------------------|------------|
| fc1    | flatten; fully connected 500; ReLU   | [500]      |
| fc2    | fully connected 300; ReLU            | [300]      |
| logits | fully connected, one output a class  | [10]       |

545,810 parameters on 28x28x1 images with 10 classes.
"""

import math

from torch import nn

from knet_hvd.models.blocks import Shape, init_kaiming, init_normal, named_blocks, scaled


def mlp(in_shape: Shape, num_classes: int, width: float = 1.0) -> nn.Sequential:
    """Build a 500-300 perceptron (after LeCun et al. 1998).

    Args:
        in_shape: Channels, height and width of an image, of any size.
        num_classes: The number of logits.
        width: The factor on the hidden units.

    Returns:
        Three blocks, from float images [n, c, h, w] to logits [n, classes].
    """
    hidden1, hidden2 = scaled(500, width), scaled(300, width)
    logits = nn.Linear(hidden2, num_classes)
    model = named_blocks(
        {
            "fc1": [nn.Flatten(), nn.Linear(math.prod(in_shape), hidden1), nn.ReLU()],
            "fc2": [nn.Linear(hidden1, hidden2), nn.ReLU()],
            "logits": [logits],
        }
    )
    init_kaiming(model)
    init_normal(logits, std=0.01)
    return model

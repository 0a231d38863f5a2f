"""What the families of networks share: sizes, padding and initial values."""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

Shape: TypeAlias = tuple[int, ...]
"""Of one sample: channels, height and width of an image, or the length of a sequence."""


def scaled(num_units: int, width: float) -> int:
    """Scale a number of channels or hidden units by the width factor.

    Args:
        num_units: The number at width 1.0.
        width: The factor.

    Returns:
        The nearest whole number, at least 1.
    """
    return max(1, round(num_units * width))


def named_blocks(blocks: Mapping[str, Iterable[nn.Module]]) -> nn.Sequential:
    """Join layers into blocks and blocks into a network.

    Args:
        blocks: The layers of each block by the block's name, in order.

    Returns:
        A sequence of named blocks.
    """
    return nn.Sequential(
        OrderedDict((name, nn.Sequential(*layers)) for name, layers in blocks.items())
    )


def blocks_of(network: nn.Sequential) -> list[tuple[str, nn.Module]]:
    """Return the children of a network with their names.

    A module without parameters, such as one ReLU, may be several of them:
    ``named_children`` would name it once.
    """
    every = network.named_modules(remove_duplicate=False)
    return [(name, module) for name, module in every if name and "." not in name]


def layers_as_blocks(model: nn.Sequential) -> nn.Sequential:
    """Make every layer of a network a block of its own.

    Args:
        model: Named blocks. One that is no sequence, such as a residual unit, is taken as
            one layer.

    Returns:
        The same layers, in their order; one of type ``ReLU`` in the block ``conv1`` has
        the name ``conv1_relu``, and a second one there ``conv1_relu_2``.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, block in model.named_children():
        if not isinstance(block, nn.Sequential):
            layers[name] = block
            continue
        types: Counter[str] = Counter()
        for layer in block:
            kind = type(layer).__name__.lower()
            types[kind] += 1
            number = f"_{types[kind]}" if types[kind] > 1 else ""
            layers[f"{name}_{kind}{number}"] = layer
    return nn.Sequential(layers)


def num_parameters(model: nn.Module) -> int:
    """Count the trainable parameters of a network.

    Args:
        model: Any module.

    Returns:
        The number of values that a training step updates.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def num_features(layers: Iterable[nn.Module], in_shape: Shape) -> int:
    """Count the values that layers make of one image, flattened.

    Args:
        layers: Layers that a fully connected one is to follow.
        in_shape: Channels, height and width of the image.

    Returns:
        The number of inputs of the fully connected layer.
    """
    # A dry run is exact for every padding and rounding rule, unlike a formula.
    # In evaluation mode it draws no random number, so it cannot shift a seed.
    probe = nn.Sequential(*layers)
    probe.eval()
    with torch.no_grad():
        count = probe(torch.zeros(1, *in_shape)).numel()
    probe.train()
    return int(count)


def check_image_size(in_shape: Shape, minimum: int, model: str) -> None:
    """Refuse images that pooling would reduce to nothing.

    Args:
        in_shape: Channels, height and width of an image.
        minimum: The least height and width, in pixels.
        model: The network's name, for the message.

    Raises:
        ValueError: The height or the width is below the minimum.
    """
    if min(in_shape[1:]) < minimum:
        raise ValueError(
            f"{model} needs images of at least {minimum}x{minimum} pixels, got "
            f"{in_shape[1]}x{in_shape[2]}: pad the images or choose another model"
        )


def pad_to(in_shape: Shape, size: int) -> list[nn.Module]:
    """Return the layer that pads images with zeros, where they need it.

    Args:
        in_shape: Channels, height and width of an image.
        size: The least height and width after padding, in pixels.

    Returns:
        One padding layer, or no layer if the images are large enough. An odd
        number of missing pixels puts the extra one on the right and below.
    """
    down, right = (max(0, size - have) for have in in_shape[1:])
    if down == right == 0:
        return []
    left, top = right // 2, down // 2
    return [nn.ZeroPad2d((left, right - left, top, down - top))]


def init_normal(layer: nn.Conv2d | nn.Linear, std: float) -> None:
    """Draw weights from a normal distribution and zero the biases.

    Args:
        layer: The layer to set in place.
        std: The standard deviation of the weights.
    """
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def init_truncated_normal(layer: nn.Conv2d | nn.Linear, std: float, bias: float) -> None:
    """Draw weights as TensorFlow's truncated normal and set a constant bias.

    Args:
        layer: The layer to set in place.
        std: The standard deviation before values beyond two of it are redrawn.
        bias: The value of all biases.
    """
    truncated_normal_(layer.weight, std)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Draw values again and again until all are within two standard deviations.

    PyTorch leaves a tensor on the meta device as it is, where other functions call
    operations that can be seen; so this one can be seen by a `TorchFunctionMode`.

    Args:
        tensor: Changed in place.
        std: The standard deviation before values beyond two of it are redrawn.
    """
    if has_torch_function_unary(tensor):
        result: Tensor = handle_torch_function(truncated_normal_, (tensor,), tensor, std)
        return result
    return nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


def init_kaiming(model: nn.Module) -> None:
    """Draw the weights of layers before a ReLU as He et al. (2015) do.

    Convolutions and fully connected layers get normal weights of variance
    2 / fan_in and zero biases (He et al., "Delving Deep into Rectifiers",
    ICCV 2015).

    Args:
        model: The network whose layers are set in place.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

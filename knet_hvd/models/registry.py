"""The networks by name. Imports none of them: a wrong name is refused before torch is there."""

import math
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from knet_hvd.models.blocks import Shape

IMAGE_MODELS: Mapping[str, str] = MappingProxyType(
    {
        "alexnet": "alexnet",
        "cifarnet": "cifarnet",
        "lenet": "lenet",
        "mlp": "mlp",
        "mnist4": "mnist",
        "mnist8": "mnist",
        "resnet20": "resnet20",
        "vgg16": "vgg16",
    }
)
"""From float images [n, c, h, w] to logits [n, classes]. Each is a function of its name (shape of
a sample, number of classes, width factor) in the module beside this one that is named here."""

SEQUENCE_MODELS: Mapping[str, str] = MappingProxyType({"transformer": "transformer"})
"""The same, from int64 [n, t] to logits [n, t, classes]."""

MODELS: Mapping[str, str] = MappingProxyType({**IMAGE_MODELS, **SEQUENCE_MODELS})


def build_model(
    name: str, *, in_shape: "Shape", num_classes: int, width: float = 1.0, layerwise: bool = False
) -> "nn.Sequential":
    """Build a network as an ordered list of named blocks.

    Each block takes one tensor and returns one, so that running the children
    one after the other is the same as running the network. The parameters are
    drawn from torch's global generator: the same `torch.manual_seed` gives the
    same network on every rank.

    Args:
        name: A key of `MODELS`.
        in_shape: Of one sample: channels, height and width of an image, or the length of
            a sequence.
        num_classes: The number of logits.
        width: The factor on the number of channels and hidden units.
        layerwise: Make every layer a block, so that cuts may be between any two.

    Returns:
        A network as `IMAGE_MODELS` or `SEQUENCE_MODELS` says.

    Raises:
        ValueError: The name is unknown, a number is not positive, the samples are of
            another kind, or the image is too small for the network.
    """
    check_model(name)
    _check_shape(name, in_shape)
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    if not (math.isfinite(width) and width > 0):
        raise ValueError(f"width: expected a positive and finite number, got {width}")
    module = import_module(f"knet_hvd.models.{MODELS[name]}")
    model: nn.Sequential = getattr(module, name)(in_shape, num_classes, width)
    if not layerwise:
        return model
    from knet_hvd.models.blocks import layers_as_blocks

    return layers_as_blocks(model)


def check_model(name: str) -> None:
    """Raise unless there is a network of this name.

    Raises:
        ValueError: Lists those that there are.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: choose one of {', '.join(MODELS)}")


def _check_shape(name: str, in_shape: "Shape") -> None:
    """Raise unless a network takes samples of a shape."""
    image = name in IMAGE_MODELS
    if len(in_shape) != (3 if image else 1) or min(in_shape) < 1:
        kind = "images [channels, height, width]" if image else "sequences [length]"
        raise ValueError(f"in_shape: {name} takes {kind}, got samples of {list(in_shape)}")

"""The networks by name. Imports none of them: a wrong name is refused before torch is there."""

import math
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from knet_hvd.factories import Factory, is_path

if TYPE_CHECKING:
    from torch import nn

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


class ModelFactory:
    """Build a network that a name stands for, as often as needed."""

    def __init__(self, name: str) -> None:
        """Import what builds it.

        Args:
            name: One of `MODELS`, or a function of the user's as `package.module:function`.

        Raises:
            ValueError: The name is unknown.
            KnetError: The user's function cannot be imported.
        """
        check_model(name)
        self._name = name
        self._function = Factory(name) if is_path(name) else _built_in(name)

    def __call__(
        self,
        *,
        in_shape: tuple[int, ...],
        num_classes: int | None,
        width: float = 1.0,
        layerwise: bool = False,
    ) -> "nn.Sequential":
        """Build the network: see `build_model`."""
        from knet_hvd.models.blocks import layers_as_blocks

        if not (math.isfinite(width) and width > 0):
            raise ValueError(f"width: expected a positive and finite number, got {width}")
        if isinstance(self._function, Factory):
            sizes = {"in_shape": in_shape, "num_classes": num_classes, "width": width}
            model = _call_own(self._function, sizes)
        else:
            classes = _checked_classes(self._name, in_shape, num_classes)
            model = self._function(in_shape, classes, width)
        return layers_as_blocks(model) if layerwise else model


def build_model(
    name: str,
    *,
    in_shape: tuple[int, ...],
    num_classes: int | None,
    width: float = 1.0,
    layerwise: bool = False,
) -> "nn.Sequential":
    """Build a network as an ordered list of named blocks.

    Each block takes one tensor and returns one, so that running the children
    one after the other is the same as running the network. The parameters are
    drawn from torch's global generator: the same `torch.manual_seed` gives the
    same network on every rank.

    Args:
        name: One of `MODELS`, or a function of the user's as `package.module:function`,
            which gets those of the next three arguments that it has parameters for.
        in_shape: Of one sample: channels, height and width of an image, or the length of
            a sequence.
        num_classes: The number of logits; networks here need it.
        width: The factor on the number of channels and hidden units.
        layerwise: Make every layer a block, so that cuts may be between any two.

    Returns:
        A network as `IMAGE_MODELS` or `SEQUENCE_MODELS` says, or what the user's function
        returns.

    Raises:
        ValueError: The name is unknown, a number is not positive, the samples are of
            another kind, or the image is too small for the network.
        KnetError: The user's function cannot be imported, fails, or returns something
            else than an `nn.Sequential` with blocks.
    """
    build = ModelFactory(name)
    return build(in_shape=in_shape, num_classes=num_classes, width=width, layerwise=layerwise)


def check_model(name: str) -> None:
    """Raise unless a name is that of a network here, or may be one of the user's.

    Raises:
        ValueError: Lists those that there are.
    """
    if not is_path(name) and name not in MODELS:
        raise ValueError(
            f"unknown model {name!r}: choose one of {', '.join(MODELS)}, or name a "
            "function of yours as package.module:function"
        )


def _built_in(name: str) -> Callable[[tuple[int, ...], int, float], "nn.Sequential"]:
    """Return the function that builds a network here."""
    function: Callable[[tuple[int, ...], int, float], nn.Sequential]
    function = getattr(import_module(f"knet_hvd.models.{MODELS[name]}"), name)
    return function


def _checked_classes(name: str, in_shape: tuple[int, ...], num_classes: int | None) -> int:
    """Return the number of classes; raise unless a network here takes such samples."""
    is_image = name in IMAGE_MODELS
    if len(in_shape) != (3 if is_image else 1) or min(in_shape) < 1:
        kind = "images [channels, height, width]" if is_image else "sequences [length]"
        raise ValueError(f"in_shape: {name} takes {kind}, got samples of {list(in_shape)}")
    if num_classes is None or num_classes < 1:
        raise ValueError(f"num_classes: {name} needs at least 1, got {num_classes}")
    return num_classes


def _call_own(factory: Factory, arguments: dict[str, Any]) -> "nn.Sequential":
    """Return the user's network."""
    from torch import nn

    model = factory.call(nn.Sequential, arguments)
    if len(model) == 0:
        raise ValueError(f"{factory.path}: expected a network of one block or more, got none")
    return model

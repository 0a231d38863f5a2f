"""Arguments that all ways to exchange gradients share, checked when something is made."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from knet_hvd.argument_checks import shown
from knet_hvd.compression import TernaryConfig


def named_pairs(named_parameters: Iterable[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """Return names and parameters as a list.

    Raises:
        TypeError: If it holds anything but pairs of a name and a tensor.
        ValueError: If a name appears twice.
    """
    name = "named_parameters: expected pairs of a name and a parameter"
    write = "pass model.named_parameters()"
    if isinstance(named_parameters, (str, nn.Module, Tensor, dict)) or not isinstance(
        named_parameters, Iterable
    ):
        kind = type(named_parameters).__name__
        raise TypeError(f"{name}, got a {kind}; {write}")
    pairs = list(named_parameters)
    names = set()
    for pair in pairs:
        if isinstance(pair, Tensor):
            raise TypeError(f"{name}, got a parameter without a name; {write}")
        if not (
            isinstance(pair, tuple)
            and len(pair) == 2
            and isinstance(pair[0], str)
            and isinstance(pair[1], Tensor)
        ):
            raise TypeError(f"{name}, got {shown(pair)}; {write}")
        if pair[0] in names:
            raise ValueError(f"named_parameters: the name {pair[0]!r} appears twice")
        names.add(pair[0])
    return pairs


def check_floating_point(name: str, parameter: Tensor) -> None:
    """Check that a parameter's gradient can cross.

    Raises:
        ValueError: If it is not of a floating-point dtype.
    """
    if not parameter.is_floating_point():
        raise ValueError(f"{name}: expected a floating-point parameter, got {parameter.dtype}")


def ternary_config(ternary: Any) -> TernaryConfig:
    """Return the settings of the codec, the default ones for None.

    Raises:
        TypeError: If they are no ``TernaryConfig``.
    """
    if ternary is None:
        return TernaryConfig()
    if not isinstance(ternary, TernaryConfig):
        raise TypeError(
            f"ternary: expected a TernaryConfig, got {shown(ternary)}; "
            "write ternary=knet_hvd.TernaryConfig(error_feedback=True)"
        )
    return ternary

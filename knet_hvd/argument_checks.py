"""Say in one line which argument is wrong, what was expected, and what came."""

import math
from numbers import Integral, Real
from typing import Any

_MAX_SHOWN = 60


def shown(value: Any) -> str:
    """Return a value as text for a message, with its type where the text does not tell it."""
    text = repr(value)
    if len(text) > _MAX_SHOWN or text.startswith("<") or "\n" in text:
        return f"a {type(value).__name__}" if not isinstance(value, type) else value.__name__
    if value is None or isinstance(value, (bool, int, float, str)):
        return text
    return f"{text} ({type(value).__name__})"


def check_integer(name: str, value: Any, least: int, most: int | None = None) -> None:
    """Check that an argument is a whole number in a range; True and 2.0 are none.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an integer of at least {least}, got {shown(value)}")
    if int(value) < least or (most is not None and int(value) > most):
        span = f"at least {least}" if most is None else f"{least} to {most}"
        raise ValueError(f"{name}: expected {span}, got {value}")


def check_positive(name: str, value: Any) -> None:
    """Check that an argument is a finite number above 0.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is 0, negative, infinite or NaN.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number > 0, got {shown(value)}")
    if not float(value) > 0:
        raise ValueError(f"{name}: expected > 0, got {value}")
    if math.isinf(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")


def check_flag(name: str, value: Any) -> None:
    """Check that an argument is True or False.

    Raises:
        TypeError: If it is anything else.
    """
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected True or False, got {shown(value)}")

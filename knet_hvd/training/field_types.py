"""Types of settings, checked where values come in."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def check_types(config: Any) -> None:
    """Raise unless every setting of a dataclass is of the type that its field names.

    Command lines are parsed by these types; a configuration made in Python is not.

    Args:
        config: A dataclass instance with annotations of ``Literal``, unions, tuples and
            classes. An int is accepted as a float.

    Raises:
        TypeError: Names the setting, what was expected and what came.
        ValueError: If it is none of the values that a ``Literal`` names.
    """
    hints = get_type_hints(type(config))
    for each in dataclasses.fields(config):
        expected, value = hints[each.name], getattr(config, each.name)
        if _fits(value, expected):
            continue
        if get_origin(expected) is Literal and isinstance(value, str):
            choices = ", ".join(map(str, get_args(expected)))
            raise ValueError(f"{each.name}: expected one of {choices}, got {value!r}")
        raise TypeError(f"{each.name}: expected {_describe(expected)}, got {type(value).__name__}")


def _fits(value: object, expected: Any) -> bool:
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Literal:
        return value in arguments
    if origin in (Union, UnionType):
        return any(_fits(value, each) for each in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return len(kinds) == len(value) and all(map(_fits, value, kinds))
    if expected is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or expected)


def _describe(expected: Any) -> str:
    if get_origin(expected) in (Union, UnionType):
        return " or ".join(_describe(each) for each in get_args(expected))
    if expected is NoneType:
        return "None"
    return expected.__name__ if isinstance(expected, type) else str(expected)

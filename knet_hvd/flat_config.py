"""Configurations as one flat table, for TensorBoard, JSON and comparison."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

Scalar: TypeAlias = bool | int | float | str

SCRIPT_ONLY: Mapping[str, bool] = MappingProxyType({"script_only": True})
"""Metadata of a field that takes a function: scripts set it, and command lines cannot."""


def to_flat_dict(config: object) -> dict[str, Scalar]:
    """Flatten a configuration into names that TensorBoard and JSON accept.

    A field of a nested dataclass is named with dots (`optimizer.lr`). One that is a
    choice among several, with a class attribute `name`, has that name as well. `None`
    becomes "none", a path its text, a function its name, and a tuple or list of scalars its values
    joined by commas. A function of a script's own has an entry only if there is one.

    Args:
        config: A dataclass instance, whose fields may be dataclass instances.

    Returns:
        One scalar a field, in the order of declaration.

    Raises:
        TypeError: `config` is no dataclass instance, or a field has a type
            that has no flat form.
    """
    if isinstance(config, type) or not dataclasses.is_dataclass(config):
        kind = config if isinstance(config, type) else type(config)
        raise TypeError(
            f"config must be a dataclass instance, got {kind.__name__!r}: "
            "pass an instance of a dataclass"
        )
    return dict(_flat_items(config, prefix=""))


def _flat_items(config: Any, prefix: str) -> Iterator[tuple[str, Scalar]]:
    """Yield the dotted name and the flat value of each field in turn."""
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if value is None and field.metadata.get("script_only"):
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            if isinstance(choice := getattr(type(value), "name", None), str):
                yield name, choice
            yield from _flat_items(value, prefix=name + ".")
        else:
            yield name, _flat_value(name, value)


def _flat_value(name: str, value: object) -> Scalar:
    """Return the scalar that stands for one field's value."""
    if isinstance(value, bool | int | float | str):
        return value
    if value is None:
        return "none"
    if isinstance(value, Path):
        return str(value)
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    if isinstance(value, tuple | list):
        return ",".join(str(_flat_value(name, item)) for item in value)
    raise TypeError(
        f"field {name!r} must be bool, int, float, str, Path, None, or a tuple or "
        f"list of them, got {type(value).__name__!r}: store such a value instead"
    )

"""Run-time errors, flat configurations and JSON files: what every layer may use."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

Scalar: TypeAlias = bool | int | float | str


class KnetError(RuntimeError):
    """Report a condition met at run time that is not a mistake in the call."""


class RankMismatchError(KnetError):
    """Report ranks that disagree on what has to be the same on all of them."""


class DataError(KnetError):
    """Report a missing, truncated or malformed data file."""


class CheckpointError(KnetError):
    """Report a checkpoint that cannot be written, or not be resumed from."""


class PreemptionError(KnetError):
    """Report that a signal has ended a job, whose state is in a checkpoint."""


def to_flat_dict(config: object) -> dict[str, Scalar]:
    """Flatten a configuration into names that TensorBoard and JSON accept.

    A field of a nested dataclass is named with dots (`optimizer.lr`). `None`
    becomes "none", a path its text, and a tuple or list of scalars its values
    joined by commas.

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
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
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
    if isinstance(value, tuple | list):
        return ",".join(str(_flat_value(name, item)) for item in value)
    raise TypeError(
        f"field {name!r} must be bool, int, float, str, Path, None, or a tuple or "
        f"list of them, got {type(value).__name__!r}: store such a value instead"
    )


def check_writable(summary: Path) -> None:
    """Make the folder of a job's results, before hours are spent on them.

    Args:
        summary: The file that will be written at the end.

    Raises:
        ValueError: If they could not be written.
    """
    try:
        summary.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"summary {summary} cannot be written ({error.strerror}): choose another"
        ) from error
    if not os.access(summary.parent, os.W_OK):
        raise ValueError(f"summary {summary} cannot be written: choose another")


def write_json_atomic(path: Path, obj: object) -> None:
    """Write an object as JSON so that a reader never sees half a file.

    The text goes to a temporary file in the same directory, is flushed to the
    disk, and then takes the place of `path` in one step. After a failure `path`
    is as it was before and no temporary file is left.

    Args:
        path: The file to write or replace; its directory must exist.
        obj: What `json.dumps` accepts.

    Raises:
        TypeError: `obj` holds something that JSON cannot express.
        ValueError: `obj` holds NaN or an infinity, which are no JSON numbers.
        OSError: The file cannot be written.
    """
    text = json.dumps(obj, indent=2, allow_nan=False) + "\n"
    # Not tempfile: it would leave the result readable by its owner only.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)

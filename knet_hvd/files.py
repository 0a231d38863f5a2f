"""Files that jobs write: checked before the work, and written whole or not at all."""

import json
import os
from pathlib import Path
from uuid import uuid4


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

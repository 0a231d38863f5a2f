"""Files: regular ones only, written whole or not at all, and checked before the work.

Somebody else may be able to write into a checkpoint folder. A name in it may then be a
symbolic link to a file of the user's, a pipe that never ends or a device that fills the
memory: ``open_regular`` opens nothing that is not a regular file under that very name.
"""

import errno
import json
import os
import shutil
import stat
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


def open_regular(path: Path, flags: int) -> int:
    """Open a regular file; neither follow a symbolic link nor wait for a pipe.

    Args:
        path: Its parent folders may be symbolic links.
        flags: Of ``os.open``.

    Returns:
        The descriptor.

    Raises:
        OSError: If it cannot be opened, or is something else.
    """
    safe = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | safe, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):  # a link; a pipe without reader
            raise _not_regular(path) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))


def read_regular(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        OSError: If it cannot be read, is something else, or has more bytes.
    """
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"longer than the {max_bytes} bytes that it may have", str(path))
    return data


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk; leave nothing on failure.

    Args:
        path: Must not exist.

    Raises:
        OSError: If it exists, or cannot be written.
    """
    try:
        with path.open("xb") as file:  # O_EXCL: follows no symbolic link
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise


def make_folder(path: Path) -> None:
    """Make a folder unless it is there.

    Raises:
        OSError: If it cannot be made, or is a symbolic link or a file.
    """
    path.mkdir(exist_ok=True)
    if not stat.S_ISDIR(path.lstat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "not a folder of its own", str(path))


def remove(path: Path) -> None:
    """Remove a folder and what is in it, or whatever else has that name.

    Raises:
        OSError: If it cannot be removed.
    """
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path)
    else:
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder (new, renamed, removed) are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

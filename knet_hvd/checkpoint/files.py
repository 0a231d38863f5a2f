"""Files that are on the disk when the function returns, or not there at all."""

import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file and wait until it is on the disk; leave nothing on failure.

    Args:
        path: Must not exist.
        data: The content.

    Raises:
        OSError: If it exists, or cannot be written.
    """
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise
    except OSError:
        path.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder (new, renamed, removed) are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

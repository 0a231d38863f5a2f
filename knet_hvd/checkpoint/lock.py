"""A lock on a folder, which the end of the process releases, however it ends."""

import fcntl
import logging
import os
import time
from pathlib import Path

from knet_hvd.deadline import Deadline
from knet_hvd.errors import CheckpointError
from knet_hvd.files import open_regular, read_regular

LOCK = ".lock"
_MAX_BYTES = 4096
_logger = logging.getLogger("knet_hvd")


class FolderLock:
    """Keep other jobs out of a folder.

    The kernel holds the lock (``flock``) for the process, so that a job that was killed
    leaves none behind. On NFS it holds for all hosts; where the file system has no
    locks, a warning says so.
    """

    def __init__(self, folder: Path, holder: str, timeout_s: float = 5.0) -> None:
        """Take the lock.

        Args:
            folder: Exists.
            holder: One line for those who come later: who has it.
            timeout_s: How long to wait for a job that is about to end.

        Raises:
            CheckpointError: If another job has it.
            OSError: If the lock file cannot be written.
        """
        # Not emptied yet: it may be the file of a job that has the lock.
        descriptor = open_regular(folder / LOCK, os.O_RDWR | os.O_CREAT)
        self._file = os.fdopen(descriptor, "r+", encoding="utf-8")
        try:
            self._acquire(folder, timeout_s)
            self._file.truncate(0)
            self._file.write(holder + "\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except BaseException:
            self._file.close()
            raise

    def _acquire(self, folder: Path, timeout_s: float) -> None:
        deadline = Deadline(timeout_s)
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if deadline.has_passed():
                    raise CheckpointError(
                        f"checkpoint folder {folder} is in use by another job "
                        f"({read_holder(folder)}): choose another folder"
                    ) from None
                time.sleep(0.1)
            except OSError as error:
                _logger.warning(
                    "%s cannot be locked (%s): see that no second job uses it",
                    folder,
                    error.strerror,
                )
                return
            else:
                return

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        self._file.close()


def read_holder(folder: Path) -> str:
    """Return what the latest holder of a folder's lock wrote.

    Raises:
        OSError: If there is no lock file.
    """
    return read_regular(folder / LOCK, _MAX_BYTES).decode(errors="replace").strip()

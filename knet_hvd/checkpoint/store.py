"""A folder of checkpoints: how one is written, found, read and removed.

``step-000000500/`` holds a checkpoint: its shards and ``manifest.json``. While it is
written it is called ``step-000000500.partial``; the name changes when everything is on
the disk, so that whatever has the first name is whole unless it was altered later.
"""

import logging
import os
import re
import shutil
from pathlib import Path

from knet_hvd.checkpoint.manifest import Manifest
from knet_hvd.checkpoint.shards import (
    DamagedCheckpointError,
    ShardRecord,
    read_shard,
    shard_name,
    write_shard,
)
from knet_hvd.checkpoint.state_tree import StateTree
from knet_hvd.files import (
    make_folder,
    read_regular,
    remove,
    sync_folder,
    write_durably,
)

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 26
"""Some hundred bytes for each of a million ranks fit."""
_COMPLETE = re.compile(r"step-([0-9]{9,})")
_LEFTOVER = re.compile(r"step-[0-9]{9,}\.(partial|removed)")
_logger = logging.getLogger("knet_hvd")


class CheckpointStore:
    """Write and read checkpoints.

    Every rank has one for the same folder and writes its own shards; one rank calls
    ``clean``, ``commit``, ``discard`` and ``set_aside``.
    """

    def __init__(self, folder: Path, keep: int = 3) -> None:
        """Keep the settings; the folder is neither made nor looked at.

        Args:
            folder: Holds the checkpoints of one job.
            keep: How many of the latest stay.

        Raises:
            ValueError: If ``keep`` is less than 1.
        """
        if keep < 1:
            raise ValueError(f"keep: expected at least 1, got {keep}")
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """Return the folder of a step's checkpoint."""
        return self.folder / f"step-{step:09d}"

    def _partial(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.partial"

    def steps(self) -> list[int]:
        """Return the steps of all checkpoints, the latest first; unchecked."""
        if not self.folder.is_dir():
            return []
        found = (_COMPLETE.fullmatch(entry.name) for entry in self.folder.iterdir())
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def write_shard(self, step: int, index: int, tree: StateTree) -> ShardRecord:
        """Write a shard of a checkpoint that is not there before ``commit``.

        Raises:
            OSError: If it cannot be written.
            TypeError: If the tree holds more than tensors and plain values.
        """
        partial = self._partial(step)
        make_folder(partial)
        return write_shard(partial, index, step, tree)

    def commit(self, manifest: Manifest) -> Path:
        """Make a checkpoint of the shards that all ranks have written.

        Args:
            manifest: Names them.

        Returns:
            Its folder.

        Raises:
            OSError: If a shard is missing or has another size, or the manifest cannot
                be written; the checkpoints before it are as they were.
        """
        partial, target = self._partial(manifest.step), self.path(manifest.step)
        for index, record in enumerate(manifest.shards):
            file = partial / shard_name(index)
            if file.lstat().st_size != record.num_bytes:
                raise OSError(0, "shard changed while it was written", str(file))
        write_durably(partial / MANIFEST, manifest.to_bytes())
        sync_folder(partial)
        self._put_in_place(partial, target)
        sync_folder(self.folder)
        self._prune(target)
        return target

    def _put_in_place(self, partial: Path, target: Path) -> None:
        """Rename; a checkpoint of the same step is there until that has worked."""
        if not os.path.lexists(target):
            partial.rename(target)
            return
        before = _put_away(target)  # a run that went back to an earlier step is here again
        try:
            partial.rename(target)
        except OSError:
            before.rename(target)
            raise

    def _prune(self, latest: Path) -> None:
        """Remove what is no longer kept; what cannot be removed now stays until later."""
        try:
            for step in self.steps()[self.keep :]:
                remove(_put_away(self.path(step)))
            removed = latest.with_suffix(".removed")
            if os.path.lexists(removed):
                remove(removed)
        except OSError as error:
            _logger.warning("old checkpoints in %s could not be removed: %s", self.folder, error)

    def discard(self, step: int) -> None:
        """Remove the shards of a checkpoint that some rank could not write."""
        shutil.rmtree(self._partial(step), ignore_errors=True)

    def clean(self) -> None:
        """Remove what a run that was killed left half-written or half-removed."""
        for entry in self.folder.iterdir():
            if _LEFTOVER.fullmatch(entry.name):
                try:
                    remove(entry)
                except OSError as error:
                    _logger.warning("%s could not be removed: %s", entry, error)

    def set_aside(self, step: int) -> Path:
        """Rename a damaged checkpoint, for a human to look at.

        Returns:
            Where it is now.
        """
        checkpoint = self.path(step)
        number = 0
        aside = checkpoint.with_suffix(".damaged")
        while aside.exists():
            number += 1
            aside = checkpoint.with_suffix(f".damaged-{number}")
        checkpoint.rename(aside)
        return aside

    def read_manifest(self, step: int) -> Manifest:
        """Read what a checkpoint consists of.

        Raises:
            DamagedCheckpointError: If it is missing, altered, or another step's.
            CheckpointError: If another version of this package wrote it.
        """
        path = self.path(step) / MANIFEST
        try:
            manifest = Manifest.from_bytes(read_regular(path, _MAX_MANIFEST_BYTES))
        except OSError as error:
            raise DamagedCheckpointError(f"{path}: {error.strerror}") from error
        except DamagedCheckpointError as error:
            raise DamagedCheckpointError(f"{path}: {error}") from error
        if manifest.step != step:
            raise DamagedCheckpointError(f"{path}: it is of step {manifest.step}")
        return manifest

    def read_shard(self, manifest: Manifest, index: int) -> StateTree:
        """Read one shard.

        Raises:
            DamagedCheckpointError: If it is missing or not what was written.
        """
        folder = self.path(manifest.step)
        return read_shard(folder, index, manifest.step, manifest.shards[index])


def _put_away(checkpoint: Path) -> Path:
    """Rename a checkpoint that shall at no moment be half there; return where it is."""
    removed = checkpoint.with_suffix(".removed")
    if os.path.lexists(removed):
        remove(removed)
    checkpoint.rename(removed)
    return removed

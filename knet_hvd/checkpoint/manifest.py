"""The manifest: which shards make a checkpoint, and what it is a checkpoint of."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from knet_hvd.checkpoint.shards import DamagedCheckpointError, ShardRecord
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar

FORMAT_VERSION = 1
_FORMAT = "knet_hvd checkpoint"
_logger = logging.getLogger("knet_hvd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Describe one checkpoint.

    Attributes:
        kind: The job, such as ``"data_parallel"``.
        step: Steps that were made.
        shards: By number.
        configuration: The job's, flat; see ``to_flat_dict``.
        details: What else the job must know before it reads a shard.
        versions: Of the packages that wrote it.
    """

    kind: str
    step: int
    shards: tuple[ShardRecord, ...]
    configuration: Mapping[str, Scalar]
    details: Mapping[str, Scalar] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the content of the manifest's file."""
        return _render({"format": _FORMAT, "format_version": FORMAT_VERSION, **asdict(self)})

    @property
    def digest(self) -> str:
        """SHA-256 of the content of the manifest's file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Manifest":
        """Read the content of a manifest's file.

        Raises:
            DamagedCheckpointError: If a single byte of it has changed.
            CheckpointError: If another version of this package wrote it.
        """
        try:
            body = json.loads(data)["manifest"]
            if _render(body) != data:
                raise ValueError("its SHA-256 is another one")
            _check_version(body.pop("format"), body.pop("format_version"))
            shards = tuple(ShardRecord(**record) for record in body.pop("shards"))
            return cls(shards=shards, **body)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedCheckpointError(f"altered: {error}") from error


def _render(body: Any) -> bytes:
    """Return the one text that stands for a manifest, with its own hash."""
    text = json.dumps(body, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    whole = {"manifest": body, "sha256": digest}
    return (json.dumps(whole, sort_keys=True, indent=1) + "\n").encode()


def note_versions(manifest: Manifest, present: Mapping[str, str]) -> None:
    """Warn if other versions of packages wrote a checkpoint.

    Args:
        manifest: Of the checkpoint.
        present: Of this process.
    """
    if dict(manifest.versions) != present:
        _logger.warning(
            "the checkpoint was written with %s, this is %s: the run goes on, but "
            "perhaps not in the same bits",
            dict(manifest.versions),
            present,
        )


def _check_version(name: object, version: object) -> None:
    if name != _FORMAT:
        raise ValueError(f"its format is {name!r}")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint of format version {version!r}: this knet_hvd reads version "
            f"{FORMAT_VERSION}; take the knet_hvd that wrote it"
        )

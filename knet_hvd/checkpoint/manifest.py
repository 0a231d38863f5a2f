"""The manifest: which shards make a checkpoint, and what it is a checkpoint of."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from knet_hvd.checkpoint.shards import DamagedCheckpointError, ShardRecord
from knet_hvd.errors import CheckpointError
from knet_hvd.flat_config import Scalar

FORMAT_VERSION = 1
_FORMAT = "knet_hvd checkpoint"
Detail = TypeVar("Detail", int, str)
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
            manifest = cls(shards=shards, **body)
            # Whoever can write the file can make its hash match.
            manifest._check_types()
            return manifest
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedCheckpointError(f"altered: {error}") from error

    def _check_types(self) -> None:
        _check("kind", self.kind, str)
        _check("step", self.step, int)
        if not self.shards:
            raise ValueError("shards: expected at least one")
        for record in self.shards:
            _check("sha256", record.sha256, str)
            _check("num_bytes", record.num_bytes, int)
        for name in ("configuration", "details", "versions"):
            table = getattr(self, name)
            _check(name, table, dict)
            for key, value in table.items():
                kinds = (str,) if name == "versions" else (bool, int, float, str)
                _check(f"{name}, {key}", value, *kinds)

    def detail(self, name: str, kind: type[Detail]) -> Detail:
        """Return one of the details.

        Raises:
            CheckpointError: If it is missing, or of another type.
        """
        value = self.details.get(name)
        if type(value) is not kind:
            raise CheckpointError(
                f"the checkpoint of step {self.step} says {name}: {value!r}, expected "
                f"{kind.__name__}"
            )
        return value


def _check(name: str, value: object, *kinds: type) -> None:
    """Raise unless a value is of a type, bool not being int, and no negative number."""
    if type(value) not in kinds:
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    if kinds == (int,) and int(str(value)) < 0:
        raise ValueError(f"{name}: expected at least 0, got {value}")


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
            "the checkpoint was written with %s, this is %s: the run continues, but "
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

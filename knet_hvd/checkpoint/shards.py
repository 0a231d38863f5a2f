"""Shards: one rank's (or stage's) part of a checkpoint, in one safetensors file."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from knet_hvd.checkpoint.state_tree import StateTree, join_tree, split_tree
from knet_hvd.errors import CheckpointError
from knet_hvd.files import open_regular, write_durably

_STRUCTURE = "structure"
"""Name of the tensor that holds the JSON: safetensors' own metadata is text only and
not returned for a file in memory, and what was hashed must be what is read."""


class DamagedCheckpointError(CheckpointError):
    """Report a checkpoint that is torn, truncated or altered."""


@dataclass(frozen=True, slots=True)
class ShardRecord:
    """What a manifest says of a shard.

    Attributes:
        sha256: Of all bytes of the file, in hexadecimal.
        num_bytes: Size of the file.
    """

    sha256: str
    num_bytes: int


def tree_to_bytes(tree: StateTree) -> bytes:
    """Return a tree as safetensors, which cannot hold code.

    Args:
        tree: Contiguous CPU tensors that share no memory, as ``snapshot`` makes them,
            and plain values.

    Raises:
        TypeError: If the tree holds anything else.
    """
    tensors, text = split_tree(tree)
    tensors[_STRUCTURE] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    data: bytes = safetensors.torch.save(tensors)
    return data


def tree_from_bytes(data: bytes) -> StateTree:
    """Return the tree of ``tree_to_bytes``.

    Raises:
        ValueError: If it is none.
    """
    try:
        tensors = safetensors.torch.load(data)
        text = bytes(tensors.pop(_STRUCTURE).tolist()).decode()
    except (SafetensorError, KeyError) as error:
        raise ValueError(str(error)) from error
    return join_tree(tensors, text)


def shard_name(index: int) -> str:
    """Return the file name of a shard."""
    return f"shard-{index:05d}.safetensors"


def write_shard(folder: Path, index: int, step: int, tree: StateTree) -> ShardRecord:
    """Write one shard and wait until it is on the disk.

    Args:
        folder: Of the checkpoint.
        index: The shard's number.
        step: The checkpoint's step.
        tree: Contiguous CPU tensors that share no memory, as ``snapshot`` makes them,
            and plain values.

    Raises:
        TypeError: If the tree holds anything else.
        OSError: If it cannot be written; nothing is left of it.
    """
    data = tree_to_bytes({"shard": index, "step": step, "content": tree})
    write_durably(folder / shard_name(index), data)
    return ShardRecord(hashlib.sha256(data).hexdigest(), len(data))


def read_shard(folder: Path, index: int, step: int, record: ShardRecord) -> StateTree:
    """Read one shard; nothing of it is interpreted before its hash was compared.

    Args:
        folder: Of the checkpoint.
        index: The shard's number.
        step: The checkpoint's step.
        record: What the manifest says of it.

    Raises:
        DamagedCheckpointError: If it is missing or not what was written.
    """
    path = folder / shard_name(index)
    try:
        data = _read(path, record.num_bytes)
    except OSError as error:
        raise DamagedCheckpointError(f"{path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedCheckpointError(f"{path}: altered, its SHA-256 is another one")
    try:
        tree = tree_from_bytes(data)
        if (tree["shard"], tree["step"]) != (index, step):
            raise ValueError(f"it is shard {tree['shard']} of step {tree['step']}")
        return tree["content"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"{path}: not a shard of it: {error}") from error


def _read(path: Path, num_bytes: int) -> bytes:
    """Return the content of a file; one of another size is not read at all."""
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        actual = os.fstat(file.fileno()).st_size
        if actual != num_bytes:
            raise DamagedCheckpointError(f"{path}: expected {num_bytes} bytes, got {actual}")
        return file.read(num_bytes)

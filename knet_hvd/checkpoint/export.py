"""``python -m knet_hvd export``: one file with the whole model, for use outside."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import torch
from torch import Tensor

from knet_hvd.checkpoint.shards import DamagedCheckpointError
from knet_hvd.checkpoint.store import MANIFEST, CheckpointStore
from knet_hvd.errors import CheckpointError
from knet_hvd.files import sync_folder


def model_state(checkpoint: Path, average: bool = False) -> dict[str, Tensor]:
    """Put a model together from the shards of a checkpoint.

    Whatever the job, a shard's entry ``model`` holds its part of the model's state
    dictionary under the names of the whole model, and ``average`` the moving averages.

    Args:
        checkpoint: A ``step-...`` folder; or the folder of such, for the latest.
        average: Take the moving averages in place of the parameters.

    Raises:
        CheckpointError: If there is none, it is damaged, or parts are there twice.
    """
    store, step = _find(checkpoint)
    manifest = store.read_manifest(step)
    state: dict[str, Tensor] = {}
    averages: dict[str, Tensor] = {}
    for index in range(len(manifest.shards)):
        shard = store.read_shard(manifest, index)
        twice = state.keys() & shard.get("model", {}).keys()
        if twice:
            raise CheckpointError(f"{store.path(step)}: {min(twice)} is there twice")
        state |= shard.get("model", {})
        averages |= shard.get("average", {})
    if average and not averages:
        raise CheckpointError(f"{store.path(step)} holds no moving average")
    return state | averages if average else state


def _find(checkpoint: Path) -> tuple[CheckpointStore, int]:
    if (checkpoint / MANIFEST).exists():
        store = CheckpointStore(checkpoint.resolve().parent)
        for step in store.steps():
            if store.path(step) == checkpoint.resolve():
                return store, step
        raise DamagedCheckpointError(f"{checkpoint}: expected a folder named step-...")
    store = CheckpointStore(checkpoint)
    if not store.steps():
        raise CheckpointError(f"{checkpoint} holds no checkpoint")
    return store, store.steps()[0]


def export(checkpoint: Path, out: Path, average: bool = False) -> int:
    """Write a model's state dictionary for ``torch.load(weights_only=True)``.

    Args:
        checkpoint: See ``model_state``.
        out: The file to write or replace.
        average: See ``model_state``.

    Returns:
        The number of tensors.

    Raises:
        CheckpointError: See ``model_state``.
        OSError: If the file cannot be written; it is then as it was.
    """
    state = model_state(checkpoint, average)
    temporary = out.with_name(f".{out.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(out.resolve().parent)
    return len(state)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m knet_hvd export",
        description="Write the model of a checkpoint as a state dictionary that "
        "torch.load(OUT, weights_only=True) reads.",
    )
    parser.add_argument("checkpoint", type=Path, help="a step-... folder, or the folder of such")
    parser.add_argument("out", type=Path, help="the file to write, such as model.pt")
    parser.add_argument(
        "--average",
        action="store_true",
        help="take the moving averages (average_decay) in place of the parameters",
    )
    flags = parser.parse_args(arguments)
    try:
        count = export(flags.checkpoint, flags.out, flags.average)
    except (CheckpointError, OSError, RuntimeError) as error:
        sys.stderr.write(f"export: {error}\n")
        return 1
    sys.stdout.write(f"{flags.out}: {count} tensors\n")
    return 0

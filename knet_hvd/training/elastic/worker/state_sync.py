"""How workers that have met come to one state: as tensors, never as pickles."""

from dataclasses import asdict
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.checkpoint import StateTree, tree_from_bytes, tree_to_bytes
from knet_hvd.training.elastic.worker.commit_memory import NO_STEP, Commit, CommitMemory, Meeting
from knet_hvd.training.state.resume_point import ResumePoint


def agree_on_state(memory: CommitMemory) -> Commit | None:
    """Give every worker the state that the job continues from.

    1. All tell which commit is their latest. The earliest of these is one that all
       have that were there before.
    2. The first of these workers sends its own, with what is the same on all ranks.
    3. Residuals are averaged over those that have any: what error feedback still owes
       to the averaged gradient stays the same. Those of a lost worker are lost.

    Args:
        memory: Of this worker; gets the meetings of the job.

    Returns:
        None in the beginning, when nobody has a state.
    """
    own = torch.tensor([[memory.latest, memory.steps_made]])
    known = hvd.allgather(own, name="knet_hvd.elastic.steps").tolist()
    holders = [rank for rank, (latest, _) in enumerate(known) if latest != NO_STEP]
    if not holders:
        memory.meetings.append(Meeting(0, hvd.size(), 0))
        return None
    step = min(known[rank][0] for rank in holders)
    lost = max(made for _, made in known) - step
    memory.steps_made = step
    commit = memory.back_to(step) if hvd.rank() in holders else None
    tree = _send_tree(_pack(commit, memory), holders[0])
    shard = tree["shard"]
    residuals = shard["compression"].get("residuals", {})
    kept = commit.shard["compression"].get("residuals", {}) if commit else {}
    if residuals:
        shard["compression"]["residuals"] = _mean(residuals, kept, len(holders))
    memory.meetings = [Meeting(**each) for each in tree["meetings"]]
    memory.meetings.append(Meeting(step, hvd.size(), lost))
    return Commit(ResumePoint(**tree["resume_point"]), shard)


def _pack(commit: Commit | None, memory: CommitMemory) -> dict[str, Any] | None:
    if commit is None:
        return None
    return {
        "resume_point": asdict(commit.resume_point),
        "meetings": [asdict(meeting) for meeting in memory.meetings],
        "shard": commit.shard,
    }


def _send_tree(tree: StateTree | None, root: int) -> StateTree:
    """Return the root's tree on every rank, a copy of its own on the root as well."""
    data = b"" if hvd.rank() != root else tree_to_bytes(tree)
    length = hvd.broadcast(torch.tensor([len(data)]), root, name="knet_hvd.elastic.length")
    own = torch.zeros(int(length), dtype=torch.uint8)
    if data:
        own = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    received = hvd.broadcast(own, root, name="knet_hvd.elastic.state")
    return tree_from_bytes(received.numpy().tobytes())


def _mean(
    wanted: dict[str, Tensor], kept: dict[str, Tensor], num_holders: int
) -> dict[str, Tensor]:
    """Return the mean of the residuals of those that were there before, fp32."""
    handles = {}
    for name, like in wanted.items():
        own = kept.get(name)
        value = torch.zeros(like.shape) if own is None else own
        handles[name] = hvd.allreduce_async(
            value.to(torch.float64), op=hvd.Sum, name=f"knet_hvd.elastic.{name}"
        )
    return {
        name: (hvd.synchronize(handle) / num_holders).to(torch.float32)
        for name, handle in handles.items()
    }

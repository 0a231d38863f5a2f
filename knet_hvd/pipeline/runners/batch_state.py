"""Batches that are under way, as trees for a checkpoint.

Tensors come back with their layout in memory: convolutions choose their order of
summation by it, and the run that goes on has to find the same.
"""

import torch
from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.decouplers.base import present
from knet_hvd.pipeline.stage import Batch
from knet_hvd.pipeline.weights.stash import Stash


def pack(tensor: Tensor | None) -> StateTree:
    """Return a tensor's values and layout; None remains None.

    Args:
        tensor: Of any shape.
    """
    if tensor is None:
        return None
    return {"values": tensor.detach(), "strides": list(tensor.stride())}


def unpack(tree: StateTree) -> Tensor | None:
    """Return the tensor of `pack`, in memory of its own.

    Args:
        tree: What `pack` returned, from a checkpoint or not.
    """
    if tree is None:
        return None
    values: Tensor = tree["values"]
    tensor = torch.empty_strided(values.shape, tree["strides"], dtype=values.dtype)
    return tensor.copy_(values)


def pack_batch(batch: Batch) -> StateTree:
    """Return all that a stage holds of a batch.

    Args:
        batch: Of a graph that hangs on it, what `Decoupler.revive` needs is packed.
    """
    stash = batch.stash
    return {
        "step": batch.step,
        "microbatch": batch.microbatch,
        "is_last": batch.is_last,
        "num_samples": batch.num_samples,
        "observed": batch.observed,
        "labels": pack(batch.labels),
        "inputs": pack(batch.inputs),
        "output": pack(batch.output) if stash is None else None,
        "prediction": pack(batch.prediction),
        "followed": pack(batch.followed),
        "weights": [] if stash is None else [pack(each) for each in stash.weights],
        "random_state": None if stash is None else pack(stash.random_state),
    }


def unpack_batch(tree: StateTree, needs_gradient: bool) -> Batch:
    """Return the batch of `pack_batch`.

    Args:
        tree: What `pack_batch` returned, from a checkpoint or not.
        needs_gradient: Whether the gradient of the inputs will be sent back.
    """
    inputs = unpack(tree["inputs"])
    if inputs is not None and needs_gradient:
        inputs.requires_grad_()
    return Batch(
        step=tree["step"],
        microbatch=tree["microbatch"],
        labels=present(unpack(tree["labels"])),
        num_samples=tree["num_samples"],
        observed=tree["observed"],
        is_last=tree.get("is_last", True),  # older checkpoints have no microbatches
        inputs=inputs,
        output=unpack(tree["output"]),
        prediction=unpack(tree["prediction"]),
        followed=unpack(tree.get("followed")),
        stash=_unpack_stash(tree),
    )


def _unpack_stash(tree: StateTree) -> Stash | None:
    random_state = unpack(tree.get("random_state"))  # older checkpoints have none
    if random_state is None:
        return None
    return Stash([present(unpack(each)) for each in tree["weights"]], random_state)

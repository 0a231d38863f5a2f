"""Batches that wait for a gradient, as trees for a checkpoint."""

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import require_gradients, tensors_of
from knet_hvd.pipeline.gradient_source import LateGradientSource
from knet_hvd.pipeline.packing import (
    pack_activation,
    pack_tensor,
    unpack_activation,
    unpack_tensor,
)
from knet_hvd.pipeline.stage import Batch, Stage


def batch_to_tree(source: LateGradientSource, batch: Batch) -> StateTree:
    """Return all that a stage holds of a batch.

    Args:
        source: Packs what it keeps of the batch.
        batch: Has run forward.
    """
    inputs = batch.kept_inputs
    return {
        "step": batch.step,
        "microbatch": batch.microbatch,
        "is_last": batch.is_last,
        "num_samples": batch.num_samples,
        "log_metrics": batch.log_metrics,
        "targets": pack_tensor(batch.targets),
        "inputs": pack_activation(inputs),
        "gradients": [] if inputs is None else [each.requires_grad for each in tensors_of(inputs)],
        "memory": source.pack_memory(batch),
    }


def batch_from_tree(
    source: LateGradientSource, stage: Stage, tree: StateTree, *, needs_gradient: bool
) -> Batch:
    """Return the batch of `batch_to_tree`.

    Args:
        source: Unpacks what it kept of the batch.
        stage: As it was when the checkpoint was written.
        tree: What `batch_to_tree` returned, from a checkpoint or not.
        needs_gradient: Whether the gradient of the inputs will be sent back.
    """
    inputs = None if tree["inputs"] is None else unpack_activation(tree["inputs"], stage.device)
    if inputs is not None and needs_gradient:
        require_gradients(inputs, tree["gradients"])
    batch = Batch(
        step=tree["step"],
        microbatch=tree["microbatch"],
        targets=unpack_tensor(tree["targets"], stage.device),
        inputs=inputs,
        num_samples=tree["num_samples"],
        log_metrics=tree["log_metrics"],
        is_last=tree["is_last"],
    )
    source.unpack_memory(stage, batch, tree["memory"])
    return batch

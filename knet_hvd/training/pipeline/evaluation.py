"""Evaluate a network that lies on many ranks: forward through the same stages."""

from collections.abc import Iterable

import torch
from torch import Tensor

from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.stage import Stage


@torch.no_grad()
def count_correct(
    stage: Stage,
    links: StageLinks,
    batches: Iterable[tuple[Tensor | None, Tensor]],
    first_step: int,
) -> int:
    """Run batches through this stage; every stage has to, with the same batches.

    Args:
        stage: The stage.
        links: To its neighbors; no training frame may be under way.
        batches: Inputs on the first stage, and labels.
        first_step: The number that the frame of the first batch carries.

    Returns:
        Samples whose largest logit is at the label; 0 on all stages but the last.

    Raises:
        KnetError: If a neighbor is lost or sends something else.
    """
    training = stage.blocks.training
    stage.blocks.eval()
    correct = 0
    for step, (inputs, labels) in enumerate(batches, start=first_step):
        if links.inputs is not None:
            inputs = links.inputs.receive(step)
        if inputs is None:
            raise ValueError("inputs: expected images on the first stage, got None")
        output = stage.forward(inputs)
        if links.outputs is not None:
            links.outputs.send(output, step)
        else:
            correct += int((output.argmax(1) == labels).sum())
    stage.blocks.train(training)
    return correct

"""Run batches forward through all stages, and judge the outputs on the last one."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor

from knet_hvd.devices.moving import moved
from knet_hvd.pipeline.activation import Activation, map_tensors, on_device, only_tensor
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.stage import Stage

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor | float]
"""(output [n, ...], targets [n, ...]) -> a mean over the samples."""


@torch.no_grad()
def sum_metric(
    stage: Stage,
    links: StageLinks,
    batches: Iterable[tuple[Activation, Tensor]],
    metric: Metric,
    *,
    rows: int,
    replica: int = 0,
    num_replicas: int = 1,
) -> tuple[float, int]:
    """Return the sum of a metric over the samples, and their number; all stages have to call.

    Args:
        stage: This rank's.
        links: To its neighbors; no training frame may be under way.
        batches: Inputs and targets, the same on every rank; inputs count on the first stage.
        metric: Called on the last stage, with whole batches.
        rows: The most samples that cross at once.
        replica: This rank evaluates each batch whose number leaves this remainder.
        num_replicas: The divisor.

    Returns:
        Zero and zero on all stages but the last.

    Raises:
        KnetError: If a neighbor is lost or sends something else.
    """
    was_training = stage.blocks.training
    stage.blocks.eval()
    total, count = 0.0, 0
    try:
        for step, (inputs, targets) in enumerate(islice(batches, replica, None, num_replicas)):
            outputs = _forward(stage, links, inputs, len(targets), step, rows)
            if stage.is_last:
                value = metric(torch.cat(outputs), moved(targets, stage.device))
                total += float(value) * len(targets)
                count += len(targets)
    finally:
        stage.blocks.train(was_training)
    return total, count


def _forward(
    stage: Stage, links: StageLinks, inputs: Activation, num_samples: int, step: int, rows: int
) -> list[Tensor]:
    """Run a batch through this stage in parts; return them on the last stage."""
    outputs = []
    for part, start in enumerate(range(0, num_samples, rows)):
        if links.inputs is None:
            part_of = partial(_rows, start=start, stop=start + rows)
            received = on_device(map_tensors(part_of, inputs), stage.device)
        else:
            received = links.inputs.receive(step, part)
        output = stage.forward(received)
        if links.outputs is None:
            outputs.append(only_tensor(output))
        else:
            links.outputs.send(output, step, part)
    return outputs


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop]

"""Test accuracy, each rank evaluating its share of the images."""

from collections.abc import Callable

import horovod.torch as hvd
import torch
from torch import Tensor, nn

from knet_hvd.data import ImageDataset

_BATCH = 500


@torch.no_grad()
def evaluate(
    model: nn.Module,
    average: dict[str, Tensor],
    dataset: ImageDataset,
    forward: Callable[[Tensor], Tensor],
) -> float:
    """Return the test accuracy, the same on every rank.

    Batch statistics are rank 0's: every rank keeps its own while it trains.

    Args:
        model: Its parameters are as before when this returns.
        average: Values by name to evaluate in place of the parameters.
        dataset: Its test images are evaluated.
        forward: From images uint8 [n, c, h, w] to the model's logits [n, classes].
    """
    buffers = dict(model.named_buffers())
    if buffers:
        hvd.broadcast_parameters(buffers, root_rank=0)
    own = {name: p.detach().clone() for name, p in model.named_parameters()}
    _load_parameters(model, average)
    model.eval()
    images = dataset.test_images[hvd.rank() :: hvd.size()]
    labels = dataset.test_labels[hvd.rank() :: hvd.size()]
    correct = torch.zeros(1, dtype=torch.int64)
    for x, y in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        correct += (forward(x).argmax(1) == y).sum()
    _load_parameters(model, own)
    total = hvd.allreduce(correct, op=hvd.Sum, name="knet_hvd.correct")
    return float(total) / len(dataset.test_labels)


def _load_parameters(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        if name in values:
            parameter.copy_(values[name])

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
    dataset: ImageDataset,
    forward: Callable[[Tensor], Tensor],
) -> float:
    """Return the test accuracy, the same on every rank.

    Batch statistics are rank 0's: every rank keeps its own while it trains.

    Args:
        dataset: Its test images are evaluated.
        forward: From images uint8 [n, c, h, w] to the model's logits [n, classes].
    """
    buffers = dict(model.named_buffers())
    if buffers:
        hvd.broadcast_parameters(buffers, root_rank=0)
    model.eval()
    images = dataset.test_images[hvd.rank() :: hvd.size()]
    labels = dataset.test_labels[hvd.rank() :: hvd.size()]
    correct = torch.zeros(1, dtype=torch.int64)
    for x, y in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
        correct += (forward(x).argmax(1) == y).sum()
    total = hvd.allreduce(correct, op=hvd.Sum, name="knet_hvd.correct")
    return float(total) / len(dataset.test_labels)

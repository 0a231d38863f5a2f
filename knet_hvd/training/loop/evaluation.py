"""Loss and metrics of a model on a split, whose samples all ranks share."""

import torch
from torch import Tensor

from knet_hvd.training.batches import BatchSource
from knet_hvd.training.loop.task import TrainingTask


@torch.no_grad()
def evaluate(task: TrainingTask, split: str) -> dict[str, float]:
    """Return what the averaged parameters reach on a split; every rank has to call.

    Args:
        task: Of this rank.
        split: train or test.

    Returns:
        The data set's metrics and the ``loss``, means over the samples of the split: the same
        on all ranks that have outputs; 0 on others.

    Raises:
        KnetError: If another rank is lost.
    """
    task.before_evaluation()
    state, source = task.state.rank_state, task.source
    was_training = state.model.training
    state.model.eval()
    names = (*source.metrics, "loss")
    sums = torch.zeros(len(names), dtype=torch.float64)
    with state.average.applied(state.model):
        for outputs, targets in task.predictions(split):
            sums += _sums(source, outputs, targets)
    state.model.train(was_training)
    means = task.total(sums) / source.num_samples(split)
    return dict(zip(names, means.tolist(), strict=True))


def _sums(source: BatchSource, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the metrics and the loss of a batch, each a sum over its samples, float64."""
    sums = []
    for name, metric in source.metrics.items():
        values = metric(outputs, targets)
        if values.shape != targets.shape[:1]:
            raise ValueError(
                f"metric {name}: expected a value for each of {len(targets)} samples, got "
                f"{list(values.shape)}"
            )
        sums.append(values.sum(dtype=torch.float64))
    loss = source.loss(outputs, targets).double() * len(targets)
    return torch.stack([*sums, loss]).cpu()

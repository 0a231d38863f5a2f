"""Accuracy of a model, whose images all ranks share."""

import torch

from knet_hvd.training.loop.task import TrainingTask


@torch.no_grad()
def evaluate(task: TrainingTask, split: str) -> float:
    """Return the accuracy of the averaged parameters on a split; every rank has to call.

    Args:
        task: Of this rank.
        split: train or test.

    Returns:
        The same on all ranks that have logits; 0 on others.

    Raises:
        KnetError: If another rank is lost.
    """
    task.before_evaluation()
    state = task.state.rank_state
    was_training = state.model.training
    state.model.eval()
    correct = 0
    with state.average.applied(state.model):
        for logits, labels in task.predictions(split):
            correct += int((logits.argmax(1) == labels).sum())
    state.model.train(was_training)
    return task.total(correct) / task.source.num_samples(split)

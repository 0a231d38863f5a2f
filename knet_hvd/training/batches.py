"""Batches as a rank needs them: its share of each, with inputs or with targets alone.

The stages of a pipeline need no inputs but in the first one. Targets do not cross the network:
every rank draws the order of samples from the seed. It costs nothing, and a stage needs no
neighbor to know the targets of a step.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from knet_hvd.data import Dataset, ShardedBatches, Split
from knet_hvd.training.config import JobConfig
from knet_hvd.training.state.resume_point import ResumePoint


class BatchSource:
    """Yield the batches of training and evaluation.

    Attributes:
        batches: Of the training set.
        num_shares: Ranks that share each batch, and what is evaluated.
        loss: What the network is trained for.
        metrics: What is reported beside it.
    """

    def __init__(
        self,
        dataset: Dataset,
        config: JobConfig,
        *,
        share: int,
        num_shares: int,
        inputs: bool = True,
    ) -> None:
        """Keep what this rank needs of a data set.

        Args:
            dataset: All of it; let go of afterwards unless inputs are wanted.
            config: The job's configuration.
            share: Which share is this rank's.
            num_shares: Ranks that share each batch, and what is evaluated.
            inputs: Whether this rank needs them.

        Raises:
            ValueError: If the data set is smaller than a batch.
        """
        self._dataset = dataset if inputs else None
        self._targets = {"train": dataset.train.targets, "test": dataset.test.targets}
        self.loss, self.metrics = dataset.loss, dataset.metrics
        self.batches = ShardedBatches(
            inputs=dataset.train.inputs if inputs else None,
            targets=dataset.train.targets,
            batch_size=config.batch_size,
            rank=share,
            num_ranks=num_shares,
            seed=config.seed,
            augment=dataset.augment if inputs else None,
        )
        self.num_shares = num_shares
        self._share = share

    def num_samples(self, split: str) -> int:
        """Return the samples of a split, train or test, all shares."""
        return len(self._targets[split])

    def training(self, epoch: int, start: ResumePoint) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield inputs and targets of an epoch.

        Args:
            epoch: Its number.
            start: Where the run began; in that epoch, what was used before is left out.

        Yields:
            [n, ...] as the network takes it, or None where no inputs are wanted; and [n, ...].
        """
        first = start if epoch == start.epoch else ResumePoint()
        for inputs, targets in self.batches.batches(epoch, first.batch, first.samples):
            yield self._prepared(inputs), targets

    def evaluation(self, split: str, batch_size: int) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield inputs and targets of this rank's share of a split, in its order.

        Args:
            split: train or test.
            batch_size: Samples a batch; the last may have fewer.

        Yields:
            As `training`.
        """
        targets = self._targets[split]
        share = torch.arange(self._share, len(targets), self.num_shares)
        for indices in share.split(batch_size):
            yield self._evaluated(split, indices), torch.as_tensor(targets[indices])

    def _evaluated(self, split: str, indices: Tensor) -> Tensor | None:
        if self._dataset is None:
            return None
        part: Split = getattr(self._dataset, split)
        return self._prepared(torch.as_tensor(part.inputs[indices]))

    def _prepared(self, inputs: Tensor | None) -> Tensor | None:
        """Return what the network takes."""
        if inputs is None or self._dataset is None:
            return None
        return self._dataset.prepare(inputs)


def expect_inputs(inputs: Tensor | None) -> Tensor:
    """Return the inputs of a batch.

    Raises:
        ValueError: If the batch has targets alone.
    """
    if inputs is None:
        raise ValueError("inputs: expected a tensor, got None")
    return inputs

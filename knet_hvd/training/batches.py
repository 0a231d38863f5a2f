"""Batches as a rank needs them: its share of each, with images or with labels alone.

The stages of a pipeline need no images but in the first one. Labels do not cross the network:
every rank draws the order of samples from the seed. It costs nothing, and a stage needs no
neighbor to know the labels of a step.
"""

from collections.abc import Iterator

from torch import Tensor

from knet_hvd.data import ImageDataset, ShardedBatches
from knet_hvd.training.config import JobConfig
from knet_hvd.training.inputs import ImagePreprocessor
from knet_hvd.training.state.resume_point import ResumePoint


class BatchSource:
    """Yield the batches of training and evaluation.

    Attributes:
        batches: Of the training set.
        num_shares: Ranks that share each batch, and what is evaluated.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        config: JobConfig,
        *,
        share: int,
        num_shares: int,
        images: bool = True,
    ) -> None:
        """Keep what this rank needs of a data set.

        Args:
            dataset: All of it; let go of afterwards unless images are wanted.
            config: The job's configuration.
            share: Which share is this rank's.
            num_shares: Ranks that share each batch, and what is evaluated.
            images: Whether this rank needs them.

        Raises:
            ValueError: If the data set is smaller than a batch.
        """
        self._dataset = dataset if images else None
        self._preprocess = ImagePreprocessor(dataset, config) if images else None
        self._labels = {"train": dataset.train_labels, "test": dataset.test_labels}
        self.batches = ShardedBatches(
            # The order depends on the number of images only: labels stand for them.
            images=dataset.train_images if images else dataset.train_labels,
            labels=dataset.train_labels,
            batch_size=config.batch_size,
            rank=share,
            num_ranks=num_shares,
            seed=config.seed,
            transform=self._preprocess.transform if self._preprocess else None,
        )
        self.num_shares = num_shares
        self._share = slice(share, None, num_shares)

    def num_samples(self, split: str) -> int:
        """Return the images of a split, train or test, all shares."""
        return len(self._labels[split])

    def training(self, epoch: int, start: ResumePoint) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield inputs and labels of an epoch.

        Args:
            epoch: Its number.
            start: Where the run began; in that epoch, what was used before is left out.

        Yields:
            fp32 [n, c, h, w] in channels last, or None where no images are wanted; and int64 [n].
        """
        first = start if epoch == start.epoch else ResumePoint()
        for images, labels in self.batches.batches(epoch, first.batch, first.images):
            yield self._inputs(images), labels

    def evaluation(self, split: str, batch_size: int) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield inputs and labels of this rank's share of a split, in its order.

        Args:
            split: train or test.
            batch_size: Images a batch; the last may have fewer.

        Yields:
            As `training`.
        """
        labels = self._labels[split][self._share]
        for start in range(0, len(labels), batch_size):
            span = slice(start, start + batch_size)
            yield self._images(split, span), labels[span]

    def _images(self, split: str, span: slice) -> Tensor | None:
        if self._dataset is None:
            return None
        train = split == "train"
        images = self._dataset.train_images if train else self._dataset.test_images
        return self._inputs(images[self._share][span])

    def _inputs(self, images: Tensor) -> Tensor | None:
        """Return what the network takes: normalized, in channels last."""
        return None if self._preprocess is None else self._preprocess(images)


def expect_images(inputs: Tensor | None) -> Tensor:
    """Return the images of a batch.

    Raises:
        ValueError: If the batch has labels alone.
    """
    if inputs is None:
        raise ValueError("inputs: expected images, got None")
    return inputs

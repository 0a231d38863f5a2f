"""Batches as each stage needs them: images for the first, labels for all.

Labels do not cross the network: every rank draws the order of samples from the seed. It
costs nothing, and a stage needs no neighbor to know the labels of a step.
"""

from collections.abc import Iterator

from torch import Tensor

from knet_hvd.data import ImageDataset, ShardedBatches
from knet_hvd.training.inputs import ImagePreprocessor
from knet_hvd.training.pipeline.config import PipelineConfig


class BatchSource:
    """Yield the batches of training and evaluation, with images on the first stage.

    Attributes:
        num_batches: Training batches an epoch.
    """

    def __init__(
        self, dataset: ImageDataset, config: PipelineConfig, images: bool, replica: int = 0
    ) -> None:
        """Keep what this stage needs of a data set.

        Args:
            dataset: All of it; let go of afterwards unless images are wanted.
            config: The job's configuration.
            images: Whether this is the first stage.
            replica: Whose share of every batch, and of what is evaluated.

        Raises:
            ValueError: If the data set is smaller than a batch.
        """
        self._dataset = dataset if images else None
        self._preprocess = ImagePreprocessor(dataset, config) if images else None
        self._labels = {"train": dataset.train_labels, "test": dataset.test_labels}
        self._batches = ShardedBatches(
            # The order depends on the number of images only: labels stand for them.
            images=dataset.train_images if images else dataset.train_labels,
            labels=dataset.train_labels,
            batch_size=config.batch_size,
            rank=replica,
            num_ranks=config.replicas,
            seed=config.seed,
            transform=self._preprocess.transform if self._preprocess else None,
        )
        self.num_batches = len(self._batches)
        self._share = slice(replica, None, config.replicas)

    def num_samples(self, split: str) -> int:
        """Return the images of a split, train or test, all replicas' shares."""
        return len(self._labels[split])

    def training(self, epoch: int, start_batch: int = 0) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield inputs and labels of an epoch.

        Args:
            epoch: Its number.
            start_batch: The first batch to yield.

        Yields:
            fp32 [n, c, h, w] in channels last on the first stage, None on others; and
            int64 [n].
        """
        for images, labels in self._batches.batches(epoch, start_batch):
            yield self._inputs(images), labels

    def evaluation(self, split: str, batch_size: int) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield inputs and labels of this replica's share of a split, in its order.

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

"""Batches of a training set, shared out among ranks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Transform = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardedBatches:
    """Share out a training set among ranks, in a new order each epoch.

    The order is a permutation drawn from (seed, epoch), the same on each rank
    without communication; rank r takes every `num_ranks`-th of it from r on.
    So no image is seen twice in an epoch, every rank has the same number of
    batches (what is left over is dropped for that epoch), and the images that
    all ranks see in a step depend only on the total batch, not on the number
    of ranks.

    Attributes:
        images: uint8 [n, c, h, w].
        labels: int64 [n].
        batch_size: Images a batch, on each rank.
        rank: This process, 0 to `num_ranks` - 1.
        num_ranks: The number of processes that share the set.
        seed: The seed of the order and of the transform; 0 or more.
        transform: Applied to the images of each batch with a generator that is
            seeded from (seed, epoch, rank, batch), for instance `augment`.

    Raises:
        ValueError: A number is out of range, images and labels do not pair, or
            the set is too small for one batch on every rank.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    rank: int = 0
    num_ranks: int = 1
    seed: int = 0
    transform: Transform | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot give a batch to every rank."""
        if len(self.images) != len(self.labels):
            raise ValueError(
                "labels: expected one for each image, got "
                f"{len(self.images)} images and {len(self.labels)} labels"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.num_ranks:
            raise ValueError(
                f"rank: expected 0 to num_ranks - 1 = {self.num_ranks - 1}, got {self.rank}"
            )
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")
        if len(self.images) < self.batch_size * self.num_ranks:
            raise ValueError(
                f"the training set must hold batch_size * num_ranks = "
                f"{self.batch_size} * {self.num_ranks} images or more, got "
                f"{len(self.images)}: take a smaller batch or fewer ranks"
            )

    def __len__(self) -> int:
        """Return the number of batches an epoch, the same on every rank."""
        return self.num_batches()

    def num_batches(self, start_image: int = 0) -> int:
        """Return the batches that are left of an epoch, the same on every rank.

        Args:
            start_image: Images of the epoch that were used before.
        """
        return (len(self.images) - start_image) // (self.batch_size * self.num_ranks)

    def indices(self, epoch: int, start_image: int = 0) -> Tensor:
        """Return the images of this rank in the order of an epoch.

        Args:
            epoch: The number of the epoch, from 0.
            start_image: Images of the epoch that were used before, in this order, by
                all ranks of a job that then had another number of them.

        Returns:
            int64 [num_batches(start_image), batch_size].

        Raises:
            ValueError: The epoch is negative, or there are not so many images.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected 0 or more, got {epoch}")
        if not 0 <= start_image <= len(self.images):
            raise ValueError(f"start_image: expected 0 to {len(self.images)}, got {start_image}")
        # Not torch.randperm: numpy guarantees this stream for all versions, and
        # ranks on unlike machines must draw the same one.
        bits = np.random.MT19937(np.random.SeedSequence((self.seed, epoch)))
        order = np.random.RandomState(bits).permutation(len(self.images))[start_image:]
        share = torch.from_numpy(order[self.rank :: self.num_ranks].astype("int64"))
        num_batches = self.num_batches(start_image)
        return share[: num_batches * self.batch_size].reshape(-1, self.batch_size)

    def batches(
        self, epoch: int, start_batch: int = 0, start_image: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch.

        Args:
            epoch: The number of the epoch, from 0.
            start_batch: The first batch to yield: a resumed run gets exactly
                the batches, transform included, that it has not seen yet.
            start_image: See `indices`; batches count from there.

        Returns:
            An iterator over images uint8 [batch_size, c, h, w] and labels
            int64 [batch_size].

        Raises:
            ValueError: The epoch is negative, or `start_batch` is not 0 to
                `len(self)`.
        """
        indices = self.indices(epoch, start_image)
        if not 0 <= start_batch <= len(indices):
            raise ValueError(
                f"start_batch: expected 0 to {len(indices)}, the number of batches an "
                f"epoch, got {start_batch}"
            )
        # Checked here and not in the generator, which would wait for next().
        return self._iterate(epoch, indices, start_batch)

    def _iterate(
        self, epoch: int, indices: Tensor, start_batch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches whose images are named by the rows of `indices`."""
        for batch in range(start_batch, len(indices)):
            images, labels = self.images[indices[batch]], self.labels[indices[batch]]
            if self.transform is not None:
                images = self.transform(images, self._generator(epoch, batch))
            yield images, labels

    def _generator(self, epoch: int, batch: int) -> torch.Generator:
        """Return the source of random numbers for one batch of this rank."""
        entropy = np.random.SeedSequence((self.seed, epoch, self.rank, batch))
        seed = int(entropy.generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(seed)

"""Batches of a training set, shared out among ranks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from knet_hvd.data.dataset import Augment, Rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ShardedBatches:
    """Share out a training set among ranks, in a new order each epoch.

    The order is a permutation drawn from (seed, epoch), the same on each rank
    without communication; rank r takes every `num_ranks`-th of it from r on.
    So no sample is seen twice in an epoch, every rank has the same number of
    batches (what is left over is dropped for that epoch), and the samples that
    all ranks see in a step depend only on the total batch, not on the number
    of ranks.

    Attributes:
        inputs: A row for each sample; None on a rank that needs targets only.
        targets: The same.
        batch_size: Samples a batch, on each rank.
        rank: This process, 0 to `num_ranks` - 1.
        num_ranks: The number of processes that share the set.
        seed: The seed of the order and of `augment`; 0 or more.
        augment: Applied to the inputs of each batch with a generator that is
            seeded from (seed, epoch, rank, batch).

    Raises:
        ValueError: A number is out of range, inputs and targets do not pair, or
            the set is too small for one batch on every rank.
    """

    inputs: Rows | None
    targets: Rows
    batch_size: int
    rank: int = 0
    num_ranks: int = 1
    seed: int = 0
    augment: Augment | None = None

    def __post_init__(self) -> None:
        """Refuse settings that cannot give a batch to every rank."""
        if self.inputs is not None and len(self.inputs) != len(self.targets):
            raise ValueError(
                "targets: expected one for each input, got "
                f"{len(self.inputs)} inputs and {len(self.targets)} targets"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.num_ranks:
            raise ValueError(
                f"rank: expected 0 to num_ranks - 1 = {self.num_ranks - 1}, got {self.rank}"
            )
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")
        if len(self.targets) < self.batch_size * self.num_ranks:
            raise ValueError(
                f"the training set must hold batch_size * num_ranks = "
                f"{self.batch_size} * {self.num_ranks} samples or more, got "
                f"{len(self.targets)}: take a smaller batch or fewer ranks"
            )

    def __len__(self) -> int:
        """Return the number of batches an epoch, the same on every rank."""
        return self.num_batches()

    def num_batches(self, start_sample: int = 0) -> int:
        """Return the batches that are left of an epoch, the same on every rank.

        Args:
            start_sample: Samples of the epoch that were used before.
        """
        return (len(self.targets) - start_sample) // (self.batch_size * self.num_ranks)

    def indices(self, epoch: int, start_sample: int = 0) -> Tensor:
        """Return the samples of this rank in the order of an epoch.

        Args:
            epoch: The number of the epoch, from 0.
            start_sample: Samples of the epoch that were used before, in this order, by
                all ranks of a job that then had another number of them.

        Returns:
            int64 [num_batches(start_sample), batch_size].

        Raises:
            ValueError: The epoch is negative, or there are not so many samples.
        """
        if epoch < 0:
            raise ValueError(f"epoch: expected 0 or more, got {epoch}")
        if not 0 <= start_sample <= len(self.targets):
            raise ValueError(f"start_sample: expected 0 to {len(self.targets)}, got {start_sample}")
        # Not torch.randperm: numpy guarantees this stream for all versions, and
        # ranks on unlike machines must draw the same one.
        bits = np.random.MT19937(np.random.SeedSequence((self.seed, epoch)))
        order = np.random.RandomState(bits).permutation(len(self.targets))[start_sample:]
        share = torch.from_numpy(order[self.rank :: self.num_ranks].astype("int64"))
        num_batches = self.num_batches(start_sample)
        return share[: num_batches * self.batch_size].reshape(-1, self.batch_size)

    def batches(
        self, epoch: int, start_batch: int = 0, start_sample: int = 0
    ) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield the batches of an epoch.

        Args:
            epoch: The number of the epoch, from 0.
            start_batch: The first batch to yield: a resumed run gets exactly
                the batches, augmented as before, that it has not seen yet.
            start_sample: See `indices`; batches count from there.

        Returns:
            An iterator over inputs [batch_size, ...], or None without any, and targets
            [batch_size, ...].

        Raises:
            ValueError: The epoch is negative, or `start_batch` is not 0 to
                `len(self)`.
        """
        indices = self.indices(epoch, start_sample)
        if not 0 <= start_batch <= len(indices):
            raise ValueError(
                f"start_batch: expected 0 to {len(indices)}, the number of batches an "
                f"epoch, got {start_batch}"
            )
        # Checked here and not in the generator, which would wait for next().
        return self._iterate(epoch, indices, start_batch)

    def _iterate(
        self, epoch: int, indices: Tensor, start_batch: int
    ) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield the batches whose samples are named by the rows of `indices`."""
        for batch in range(start_batch, len(indices)):
            inputs = self._inputs(indices[batch], epoch, batch)
            yield inputs, torch.as_tensor(self.targets[indices[batch]])

    def _inputs(self, indices: Tensor, epoch: int, batch: int) -> Tensor | None:
        if self.inputs is None:
            return None
        inputs = torch.as_tensor(self.inputs[indices])
        if self.augment is None:
            return inputs
        return self.augment(inputs, self._generator(epoch, batch))

    def _generator(self, epoch: int, batch: int) -> torch.Generator:
        """Return the source of random numbers for one batch of this rank."""
        entropy = np.random.SeedSequence((self.seed, epoch, self.rank, batch))
        seed = int(entropy.generate_state(1, np.uint64)[0])
        return torch.Generator().manual_seed(seed)

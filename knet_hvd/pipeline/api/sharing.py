"""The share of each batch that a replica trains on."""

from dataclasses import dataclass

from torch import Tensor

from knet_hvd.pipeline.activation import Activation, map_tensors


@dataclass(frozen=True, slots=True)
class BatchShare:
    """Cut each batch into as many runs of samples as there are replicas.

    Attributes:
        index: Which replica this rank is.
        number: Replicas of each stage.
        num_microbatches: Parts of a replica's share.
    """

    index: int = 0
    number: int = 1
    num_microbatches: int = 1

    def check(self, num_samples: int) -> None:
        """Raise unless each replica gets a share of a batch.

        Replicas average after as many microbatches each, so that their shares are equal if
        there are several.

        Raises:
            ValueError: Says how many samples fit.
        """
        if self.number == 1:
            return
        if num_samples < self.number:
            raise ValueError(
                f"batch: expected at least {self.number} samples, one for each replica, got "
                f"{num_samples}"
            )
        parts = self.number * self.num_microbatches
        if self.num_microbatches > 1 and num_samples % parts:
            raise ValueError(
                f"batch: expected a multiple of {parts} samples, for {self.number} replicas with "
                f"{self.num_microbatches} microbatches each, got {num_samples}"
            )

    def largest(self, num_samples: int) -> int:
        """Return the samples of the largest share of a batch."""
        return -(-num_samples // self.number)

    def of(self, activation: Activation) -> Activation:
        """Return this replica's samples, [n, ...] each."""
        if self.number == 1:
            return activation
        return map_tensors(self._rows, activation)

    def targets(self, targets: Tensor) -> Tensor:
        """Return the targets of this replica's samples."""
        return targets if self.number == 1 else self._rows(targets)

    def mean_samples(self, num_samples: int) -> float | None:
        """Return the mean size of the shares: what losses are a mean over. None if all are one."""
        return None if self.number == 1 else num_samples / self.number

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.tensor_split(self.number)[self.index]

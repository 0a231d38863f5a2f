"""What exchanges, reducer, calibration and agreement checks need of a transport.

Every operation starts at once and returns a handle. Nothing here waits until somebody
asks the handle to, so the operations of several buckets can be in flight.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Handle(Protocol):
    """One operation in flight."""

    def poll(self) -> bool:
        """Return whether ``wait`` would return at once."""

    def wait(self) -> Tensor:
        """Wait for the operation and return its result; call it once."""


class Collectives(ABC):
    """Collective operations over a fixed group of ranks.

    Every rank of the group starts each operation under the same name. Ranks may start
    them in different orders, unless the transport's class says that it pairs operations by
    their order. Names are unique among the operations in flight. The part of a name
    before its first dot says the phase (``scales``, ``codes``, ``levels``, ``float``), of
    which the later depend on results of the earlier.
    """

    @property
    @abstractmethod
    def ranks(self) -> Sequence[int]:
        """The numbers that the group's ranks have in the whole job, rising."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """This rank's place in the group, 0 to ``size`` - 1."""

    @property
    def size(self) -> int:
        """Number of ranks in the group."""
        return len(self.ranks)

    @property
    def job_rank(self) -> int:
        """This rank's number in the whole job."""
        return self.ranks[self.rank]

    @property
    def are_mpi_ranks(self) -> bool:
        """Whether numbers in the job are ranks of an MPI that several threads may call."""
        return False

    @property
    @abstractmethod
    def fusion_bytes(self) -> int:
        """Size of the buffer in which the transport joins small float tensors.

        A larger tensor crosses from where it lies.
        """

    @abstractmethod
    def check_device(self, device: torch.device) -> None:
        """Check that tensors on this device can cross.

        Raises:
            KnetError: If they cannot.
        """

    @abstractmethod
    def maximum(self, values: Tensor, name: str) -> Handle:
        """Start to take the largest of all ranks' values, element by element.

        Args:
            values: fp32, fp64, int32 or int64 [n], without NaN, which some transports
                lose; may be overwritten.
            name: See above.

        Returns:
            Gives the maxima [n].
        """

    @abstractmethod
    def sum(self, values: Tensor, name: str) -> Handle:
        """Start to add all ranks' values, element by element.

        Args:
            values: fp16, fp32, fp64, int32 or int64 [n]; may be overwritten.
            name: See above.

        Returns:
            Gives the sums [n].
        """

    @abstractmethod
    def mean(self, values: Tensor, name: str) -> Handle:
        """Start to average values as the transport's own optimizer does.

        Args:
            values: fp16, fp32 or fp64 [n]; may be overwritten.
            name: See above.

        Returns:
            Gives the means [n].
        """

    @abstractmethod
    def all_gather(self, values: Tensor, sizes: Sequence[int], name: str) -> Handle:
        """Start to give every rank the values of all ranks.

        Args:
            values: uint8 or int64 [sizes[rank]]; must not change until the end.
            sizes: Values of each rank, the same on all ranks.
            name: See above.

        Returns:
            Gives all values [sum of sizes] in the order of the ranks.
        """

    @abstractmethod
    def all_to_all(
        self, values: Tensor, send_sizes: Sequence[int], receive_sizes: Sequence[int], name: str
    ) -> Handle:
        """Start to give each rank its own part of every rank's values.

        Args:
            values: uint8 [sum of send_sizes]; must not change until the end.
            send_sizes: Values for each rank.
            receive_sizes: Values from each rank.
            name: See above.

        Returns:
            Gives the parts [sum of receive_sizes] in the order of the ranks they are from.
        """


def check_devices(collectives: Collectives, tensors: Iterable[Tensor]) -> None:
    """Check that gradients of these parameters can cross.

    Raises:
        KnetError: If one is on a device whose tensors cannot.
    """
    for device in {tensor.device for tensor in tensors}:
        collectives.check_device(device)

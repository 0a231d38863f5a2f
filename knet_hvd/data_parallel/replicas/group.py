"""Groups of ranks that train the same parameters, side by side in one job.

Each stage of a pipeline may have replicas: its ranks are a Horovod process set, over
which gradients are averaged. Nothing here waits inside Horovod: a rank that waits there
can neither give up nor say why the launcher ends it.
"""

from collections.abc import Mapping, Sequence

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.agreement import check_agreement
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.optimizer.distributed import DistributedOptimizer
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.data_parallel.replicas.optimizer import ReplicaOptimizer, Wait, horovod_errors
from knet_hvd.errors import KnetError

_static_sets: dict[tuple[int, ...], hvd.ProcessSet] = {}
"""The process sets that Horovod was initialized with, which last as long as it does."""


class ReplicaGroup:
    """Average gradients over the ranks of this rank's group.

    Attributes:
        ranks: The group.
        process_set: The same for Horovod.
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], rank: int, num_ranks: int, wait: Wait
    ) -> None:
        """Initialize Horovod, unless it is, and form the groups; all ranks have to.

        Args:
            groups: Ranks in rising order, each in one group.
            rank: This process in MPI.
            num_ranks: All processes in MPI.
            wait: How to wait for other ranks.

        Raises:
            KnetError: If Horovod and MPI do not see the same ranks, or cannot be used
                from two threads.
        """
        self.ranks = next(tuple(group) for group in groups if rank in group)
        self._wait = wait
        sets = [hvd.ProcessSet(list(group)) for group in groups]
        if not hvd.is_initialized():
            hvd.init(process_sets=sets if len(sets) > 1 else None)
            _static_sets.update({tuple(s.ranks): s for s in sets if len(sets) > 1})
        _check_ranks(rank, num_ranks)
        self._added: list[hvd.ProcessSet] = []
        if len(sets) == 1:
            self.process_set = hvd.global_process_set
            return
        if self.ranks not in _static_sets:
            self._added = [hvd.add_process_set(each) for each in sets]
        known = {tuple(each.ranks): each for each in self._added}
        self.process_set = (known or _static_sets)[self.ranks]

    def wrap(
        self,
        optimizer: torch.optim.Optimizer,
        named_parameters: Sequence[tuple[str, Tensor]],
        compression: str,
        ternary: TernaryConfig,
        backward_passes_per_step: int,
    ) -> ReplicaOptimizer:
        """Return an optimizer that averages gradients over the group.

        Args:
            named_parameters: Names that no other optimizer of the group uses.
            compression: none, fp16 or ternary.
            ternary: Settings of the codes.
            backward_passes_per_step: Backward passes before each update.

        Raises:
            RankMismatchError: If the group's ranks differ in parameters or settings.
        """
        averaging = DistributedOptimizer(
            optimizer,
            named_parameters,
            compression,
            backward_passes_per_step,
            process_set=self.process_set,
            ternary=ternary,
        )
        return ReplicaOptimizer(averaging, self._wait)

    def broadcast(self, tensors: Mapping[str, Tensor]) -> None:
        """Give all ranks the values of the group's first one, in place.

        Args:
            tensors: By name; the same names and shapes on all ranks of the group.
        """
        with horovod_errors():
            handles = [
                hvd.broadcast_async_(
                    tensor.detach(),
                    self.ranks[0],
                    name=f"knet_hvd.replica.{name}",
                    process_set=self.process_set,
                )
                for name, tensor in tensors.items()
            ]
            for handle in handles:
                self._wait_for(handle, "the first replica's values")

    def check_same(self, facts: Mapping[str, object], what: str) -> None:
        """Check that all ranks of the group hold the same facts; see ``check_agreement``."""
        with horovod_errors():
            ranks = CollectiveRanks(HorovodCollectives(self.process_set))
            check_agreement(ranks, facts, what, same_names=True)

    def total(self, values: Tensor) -> Tensor:
        """Return the sums over the group's ranks of their values, float64 [k]."""
        with horovod_errors():
            handle = hvd.allreduce_async(
                values,
                op=hvd.Sum,
                name="knet_hvd.replica.total",
                process_set=self.process_set,
            )
            return self._wait_for(handle, "the other replicas' results")

    def _wait_for(self, handle: int, what: str) -> Tensor:
        self._wait(lambda: bool(hvd.poll(handle)), f"rank {hvd.rank()}: {what}")
        result: Tensor = hvd.synchronize(handle)
        return result

    def close(self) -> None:
        """Dissolve groups that were added to a running Horovod; all ranks have to."""
        for process_set in self._added:
            hvd.remove_process_set(process_set)


def _check_ranks(rank: int, num_ranks: int) -> None:
    if not hvd.mpi_enabled() or (hvd.rank(), hvd.size()) != (rank, num_ranks):
        raise KnetError(
            f"Horovod: expected rank {rank} of {num_ranks} as in MPI, got "
            f"{hvd.rank()} of {hvd.size()}: start the job with mpirun, and with a "
            "Horovod that is built with MPI"
        )
    if not hvd.mpi_threads_supported():
        raise KnetError(
            "MPI: expected support for several threads (MPI_THREAD_MULTIPLE), which "
            "Horovod beside a pipeline needs, got less: take an MPI built with it"
        )

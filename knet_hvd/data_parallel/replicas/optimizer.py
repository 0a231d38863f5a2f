"""An optimizer that averages gradients over replicas, and gives up when one is lost."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import horovod.torch as hvd
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from knet_hvd.data_parallel.optimizer.averaging import AveragingOptimizer, WireBytes
from knet_hvd.errors import KnetError

Wait = Callable[[Callable[[], bool], str], None]
"""Returns as soon as its first argument holds; the second says what is waited for."""


class ReplicaOptimizer:
    """Average gradients over the replicas, then update."""

    def __init__(self, optimizer: AveragingOptimizer, wait: Wait) -> None:
        """Take the optimizer that averages, and how to wait for other ranks."""
        self._optimizer = optimizer
        self._wait = wait
        self._has_averaged = False

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups, to set learning rates."""
        return self._optimizer.param_groups

    @property
    def wire_bytes(self) -> WireBytes:
        """Return what this rank sends in a step, by formula."""
        return self._optimizer.wire_bytes

    @property
    def state(self) -> Mapping[Tensor, Any]:
        """Return what the optimizer keeps for each parameter."""
        return self._optimizer.state

    def synchronize(self) -> None:
        """Wait until the averages of all gradients are there.

        Raises:
            KnetError: If a replica is lost, or does not come in time.
        """
        what = f"rank {hvd.rank()}: gradients of the other replicas"
        with horovod_errors():
            self._wait(self._optimizer.poll, what)

    def average(self) -> None:
        """Put the averages in the place of the gradients, for example to clip them.

        Raises:
            KnetError: If a replica is lost, or does not come in time.
        """
        self.synchronize()
        with horovod_errors():
            self._optimizer.synchronize()
        self._has_averaged = True

    def step(self) -> None:
        """Update with the averages.

        Raises:
            KnetError: If a replica is lost, or does not come in time.
        """
        if not self._has_averaged:
            self.synchronize()
        self._has_averaged, has_averaged = False, self._has_averaged
        skipping = self._optimizer.skip_synchronize() if has_averaged else nullcontext()
        with horovod_errors(), skipping:
            self._optimizer.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, the same on all replicas."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self._optimizer.load_state_dict(state_dict)

    def compression_state_dict(self) -> dict[str, Any]:
        """Return what compression keeps on this replica; empty if nothing."""
        return self._optimizer.compression_state_dict()

    def load_compression_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `compression_state_dict` returned on this replica."""
        self._optimizer.load_compression_state_dict(state)


@contextmanager
def horovod_errors() -> Iterator[None]:
    """Raise Horovod's errors within as the package's own.

    Raises:
        KnetError: In place of Horovod's error.
    """
    try:
        yield
    except HorovodInternalError as error:
        raise KnetError(
            f"Horovod stopped ({error}): another rank has ended; what it printed tells why"
        ) from error

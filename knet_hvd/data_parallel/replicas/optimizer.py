"""An optimizer that averages gradients over replicas, and gives up when one is lost."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import horovod.torch as hvd
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor

from knet_hvd.data_parallel.optimizer.averaging import (
    WireBytes,
    compression_state,
    load_compression_state,
)
from knet_hvd.data_parallel.optimizer.ternary import TernaryOptimizer
from knet_hvd.errors import KnetError

Wait = Callable[[Callable[[], bool], str], None]
"""Returns as soon as its first argument does hold; the second says what is awaited."""


class ReplicaOptimizer:
    """Average gradients over the replicas, then update.

    Attributes:
        wire_bytes: What this rank sends in a step, by formula.
    """

    def __init__(self, optimizer: Any, wire_bytes: WireBytes, wait: Wait) -> None:
        """Take a distributed optimizer.

        Args:
            optimizer: What `DistributedOptimizer` returned.
            wire_bytes: What it sends.
            wait: How to wait for other ranks.
        """
        self.wire_bytes = wire_bytes
        self._optimizer = optimizer
        self._wait = wait

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups, to set learning rates."""
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        return groups

    @property
    def state(self) -> Mapping[Tensor, Any]:
        """Return what the optimizer keeps for each parameter."""
        state: Mapping[Tensor, Any] = self._optimizer.state
        return state

    def synchronize(self) -> None:
        """Wait until the averages of all gradients are there.

        Raises:
            KnetError: If a replica is lost, or does not come in time.
        """
        what = f"rank {hvd.rank()}: gradients of the other replicas"
        with horovod_errors():
            self._wait(self._ready, what)

    def _ready(self) -> bool:
        if isinstance(self._optimizer, TernaryOptimizer):
            return self._optimizer.poll()
        handles = self._optimizer._handles.values()  # Horovod's own optimizer
        return all(handle is None or hvd.poll(handle) for handle, _ in handles)

    def step(self) -> None:
        """Update with the averages.

        Raises:
            KnetError: If a replica is lost, or does not come in time.
        """
        self.synchronize()
        with horovod_errors():
            self._optimizer.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, the same on all replicas."""
        state: dict[str, Any] = self._optimizer.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self._optimizer.load_state_dict(state_dict)

    def compression_state_dict(self) -> dict[str, Any]:
        """Return what compression keeps on this replica; empty if nothing."""
        return compression_state(self._optimizer)

    def load_compression_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `compression_state_dict` returned on this replica."""
        load_compression_state(self._optimizer, state)


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

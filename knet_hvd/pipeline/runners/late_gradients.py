"""The queue of batches whose gradients come back later."""

from collections import deque

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.gradient_source import LateGradientSource
from knet_hvd.pipeline.packing import pack_activation, unpack_activation
from knet_hvd.pipeline.runners.batches_under_way import batch_from_tree, batch_to_tree
from knet_hvd.pipeline.runners.stage_io import StageIO
from knet_hvd.pipeline.stage import Batch, Stage


class LateGradients:
    """Pair gradients that come back with the batches that wait for them, in order.

    Attributes:
        source: Learns from them.
    """

    def __init__(
        self,
        io: StageIO,
        source: LateGradientSource,
        *,
        max_delay: int,
        num_microbatches: int,
        deterministic: bool,
    ) -> None:
        """Start with no batch under way.

        Args:
            io: Receives the gradients.
            source: Learns from them.
            max_delay: Most microbatches between one and its gradient.
            num_microbatches: Parts of a step.
            deterministic: Take each gradient after exactly `max_delay` microbatches.
        """
        self.source = source
        self._io = io
        self._max_delay = max_delay
        self._num_microbatches = num_microbatches
        self._deterministic = deterministic
        self._waiting: deque[Batch] = deque()
        self._arrived: deque[Activation] = deque()  # for the oldest of them, in order

    def __len__(self) -> int:
        """Return the number of batches that wait."""
        return len(self._waiting)

    @property
    def num_updates(self) -> int:
        """Return the updates that the batches under way lead to."""
        return sum(batch.is_last for batch in self._waiting)

    @property
    def arrived_share(self) -> float:
        """Return the share of the next update's microbatches that were learned from, 0 to 1."""
        left = next((n for n, batch in enumerate(self._waiting, 1) if batch.is_last), None)
        return 0.0 if left is None else max(0.0, 1 - left / self._num_microbatches)

    @property
    def newest_step(self) -> int:
        """Return the step of the batch that began to wait last."""
        return self._waiting[-1].step

    def append(self, batch: Batch) -> None:
        """Have a batch wait for its gradient."""
        self._waiting.append(batch)

    def is_due(self) -> bool:
        """Return whether to take the oldest gradient now."""
        if not self._waiting:
            return False
        if self._number(self._waiting[-1]) - self._number(self._waiting[0]) >= self._max_delay:
            return True
        if self._deterministic:
            return False
        return bool(self._arrived) or self._io.gradient_is_there()

    def _number(self, batch: Batch) -> int:
        """Return how many microbatches the run had before this one."""
        return batch.step * self._num_microbatches + batch.microbatch

    def take(self) -> tuple[Batch, Activation]:
        """Return the oldest batch and the gradient of its output; wait if need be."""
        batch = self._waiting.popleft()
        if self._arrived:
            return batch, self._arrived.popleft()
        return batch, self._io.receive_gradient(batch)

    def poll(self) -> None:
        """Receive the gradients that have come back."""
        while len(self._arrived) < len(self._waiting) and self._io.gradient_is_there():
            self._receive_next()

    def receive(self, up_to: int) -> None:
        """Receive gradients until so many have come back since the start."""
        while self._io.num_received_gradients < up_to:
            self._receive_next()

    def _receive_next(self) -> None:
        """Receive the gradient of the oldest batch that has none yet."""
        self._arrived.append(self._io.receive_gradient(self._waiting[len(self._arrived)]))

    def state(self) -> StateTree:
        """Return the batches and gradients that are here."""
        return {
            "waiting": [batch_to_tree(self.source, batch) for batch in self._waiting],
            "arrived": [pack_activation(gradient) for gradient in self._arrived],
        }

    def load_state(self, stage: Stage, state: StateTree) -> None:
        """Continue with what `state` returned.

        Args:
            stage: As it was then.
            state: From a checkpoint or not.
        """
        needs_gradient = self._io.sends_gradients
        self._waiting = deque(
            batch_from_tree(self.source, stage, tree, needs_gradient=needs_gradient)
            for tree in state["waiting"]
        )
        arrived = (unpack_activation(tree, stage.device) for tree in state["arrived"])
        self._arrived = deque(arrived)

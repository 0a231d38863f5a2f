"""Run a stage that does not wait: learn at once, or from gradients when they come.

A step of a stage: (1) take the next activation; (2) forward; (3) send the output on;
(4) learn from the decoupler's own gradient, if it has one, send the gradient of the
inputs back, and update; (5) take gradients that have come back for earlier batches.
With microbatches a step does that for each, and there is one update for all of them
(PipeDream-2BW, Narayanan et al., ICML 2021): gradients are fewer updates old.
The stages before and after work on other batches at the same time: receives are posted
in advance and sends are buffered.
"""

from collections import deque

from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.comm.throttle import Throttle
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.decouplers.base import present
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.runners.batch_state import pack, pack_batch, unpack, unpack_batch
from knet_hvd.pipeline.stage import Batch, Stage


class DecoupledRunner(Runner):
    """Run a stage of which several batches are under way."""

    def __init__(
        self,
        stage: Stage,
        decoupler: Decoupler,
        links: StageLinks,
        log_every: int,
        throttle: Throttle,
        *,
        max_delay: int,
        num_microbatches: int,
        deterministic: bool,
    ) -> None:
        """Take what a stage runs with.

        Args:
            stage: The stage.
            decoupler: Where its gradients come from.
            links: To its neighbours.
            log_every: Steps between those whose metrics are wanted.
            throttle: Makes this rank slower, for tests.
            max_delay: Most microbatches between one and the gradient that comes back
                for it; the stage waits for one that is older.
            num_microbatches: Of a step; an update follows the last one.
            deterministic: Take each gradient after exactly that many microbatches.
        """
        super().__init__(stage, decoupler, links, log_every, throttle)
        self._max_delay = max_delay
        self._num_microbatches = num_microbatches
        self._deterministic = deterministic
        self._pending: deque[Batch] = deque()
        self._arrived: deque[Tensor] = deque()  # for the oldest of them, in order

    def step(self, step: int, inputs: Tensor | None, labels: Tensor) -> None:
        """Train on one batch, and on what has come back for earlier ones.

        With microbatches the weights change when all of a step have come back; by then
        some of the next step are under way.
        """
        parts = labels.chunk(self._num_microbatches)
        images = None if inputs is None else inputs.chunk(self._num_microbatches)
        updates_ahead = sum(batch.is_last for batch in self._pending)
        for index, part in enumerate(parts):
            own = None if images is None else images[index]
            batch = self._batch(step, index, part, len(labels), own)
            batch.is_last = index == self._num_microbatches - 1
            batch.updates_ahead = updates_ahead
            self._train(batch)

    def _train(self, batch: Batch) -> None:
        """Train on a microbatch, and on what has come back for earlier ones."""
        self._forward(batch)
        with self._throttle:
            learned = self.decoupler.learn(self.stage, batch)
        if learned:
            self._pass_back(batch)
        if self._links.output_gradients is not None:
            self._pending.append(batch)
            while self._pending and self._due(batch):
                self._collect(batch.step)

    def drain(self) -> None:
        """Learn from all gradients that are still to come back."""
        while self._pending:
            self._collect(self._pending[-1].step)

    def take_in(self) -> None:
        """Receive what has come back, without learning from it yet."""
        link = self._links.output_gradients
        while link is not None and len(self._arrived) < len(self._pending):
            if not link.ready():
                return
            self._arrive()

    def settle(self, num_sent: int) -> None:
        """Receive all that the next stage has sent back, without learning from it."""
        link = self._links.output_gradients
        while link is not None and link.received_frames < num_sent:
            self._arrive()

    def _arrive(self) -> None:
        """Receive the next gradient, of the oldest batch that has none yet."""
        gradient = super()._receive_gradient(self._pending[len(self._arrived)])
        if gradient is not None:
            self._arrived.append(gradient)

    def state(self) -> StateTree:
        """Return batches without a gradient, and gradients not yet learned from.

        And what the microbatches of an unfinished step have left in the parameters.
        """
        return {
            "sums": [pack(each.grad) for each in self.stage.blocks.parameters()],
            "pending": [pack_batch(batch) for batch in self._pending],
            "arrived": [pack(gradient) for gradient in self._arrived],
            "staleness": self.staleness,
        }

    def load_state(self, state: StateTree) -> None:
        """Go on with the batches and gradients that were under way."""
        needs_gradient = self._links.input_gradients is not None
        pending = (unpack_batch(each, needs_gradient) for each in state["pending"])
        self._pending = deque(pending)
        for batch in self._pending:
            self.decoupler.revive(self.stage, batch)
        self._arrived = deque(present(unpack(each)) for each in state["arrived"])
        self.staleness = state["staleness"]
        # Older checkpoints have no sums: there were no microbatches.
        if "sums" in state:
            parameters = self.stage.blocks.parameters()
            for parameter, gradient in zip(parameters, state["sums"], strict=True):
                parameter.grad = unpack(gradient)

    def _receive_gradient(self, batch: Batch) -> Tensor | None:
        """Return the gradient of the oldest batch's output."""
        if self._arrived:
            return self._arrived.popleft()
        return super()._receive_gradient(batch)

    def _due(self, newest: Batch) -> bool:
        """Return whether to take the oldest gradient now."""
        link = self._links.output_gradients
        if self._number(newest) - self._number(self._pending[0]) >= self._max_delay:
            return True
        if self._deterministic or link is None:
            return False
        return bool(self._arrived) or link.ready()

    def _number(self, batch: Batch) -> int:
        """Return how many microbatches the run had before this one."""
        return batch.step * self._num_microbatches + batch.microbatch

    def _collect(self, step: int) -> None:
        """Learn from the oldest gradient."""
        batch = self._pending.popleft()
        gradient = self._receive_gradient(batch)
        if gradient is None:
            return
        self.staleness = step - batch.step
        with self._throttle:
            learned = self.decoupler.learn_from(self.stage, batch, gradient)
        if learned:
            self._pass_back(batch)
        else:
            self._send_back(batch)

    def _pass_back(self, batch: Batch) -> None:
        """Send the gradient of the inputs on its way, then update if that was all."""
        self._send_back(batch)
        if batch.is_last:
            with self._throttle:
                self.stage.update(self.decoupler.update_share)

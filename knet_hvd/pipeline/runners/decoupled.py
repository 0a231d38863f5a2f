"""Run a stage that does not wait: learn at once, or from gradients when they come.

A step of a stage: (1) take the next activation; (2) forward; (3) send the output on;
(4) go backward now, if the gradient source can, send the gradient of the inputs back,
and update; (5) take gradients that have come back for earlier batches.
With microbatches a step does that for each, and there is one update for all of them
(PipeDream-2BW, Narayanan et al., ICML 2021): gradients are fewer updates old.
The stages before and after work on other batches at the same time: receives are posted
in advance and sends are buffered.
"""

from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.comm.throttle import Throttle
from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.gradient_source import GradientSource, LateGradientSource
from knet_hvd.pipeline.packing import pack_tensor, unpack_optional
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.runners.late_gradients import LateGradients
from knet_hvd.pipeline.runners.stage_io import StageIO, split_batch
from knet_hvd.pipeline.stage import Batch, Stage


class DecoupledRunner(Runner):
    """Run a stage of which several batches are under way."""

    def __init__(
        self,
        stage: Stage,
        gradient_source: GradientSource,
        io: StageIO,
        throttle: Throttle,
        *,
        max_delay: int,
        num_microbatches: int = 1,
        deterministic: bool = False,
    ) -> None:
        """Take what a stage runs with.

        Args:
            stage: The stage.
            gradient_source: Where its gradients come from.
            io: To and from its neighbors.
            throttle: Makes this rank slower, for tests.
            max_delay: Most microbatches between one and the gradient that comes back
                for it; the stage waits for one that is older.
            num_microbatches: Parts of a step; an update follows the last one.
            deterministic: Take each gradient after exactly `max_delay` microbatches.
        """
        super().__init__(stage, gradient_source)
        self._io = io
        self._throttle = throttle
        self._num_microbatches = num_microbatches
        self._late: LateGradients | None = None
        if isinstance(gradient_source, LateGradientSource):
            self._late = LateGradients(
                io,
                gradient_source,
                max_delay=max_delay,
                num_microbatches=num_microbatches,
                deterministic=deterministic,
            )

    def step(
        self, step: int, inputs: Activation | None, targets: Tensor, mean_over: float | None = None
    ) -> None:
        """Train on one batch, and on what has come back for earlier ones.

        With microbatches the weights change when all of a step have come back; by then
        some of the next step are under way.
        """
        num_updates, arrived_share = 0, 0.0
        if self._late is not None:
            num_updates, arrived_share = self._late.num_updates, self._late.arrived_share
        for part in split_batch(step, inputs, targets, self._num_microbatches, mean_over):
            self._train(self._io.receive_batch(part, num_updates, arrived_share))

    def _train(self, batch: Batch) -> None:
        """Train on a microbatch, and on what has come back for earlier ones."""
        with self._throttle:
            output = self.gradient_source.forward(self.stage, batch)
        self._io.send_output(batch, output)
        del output  # only the gradient source knows how long it is needed
        with self._throttle:
            has_gradients = self.gradient_source.backward_now(self.stage, batch)
        if has_gradients:
            self._send_back_and_update(batch)
        if self._late is not None:
            self._late.append(batch)
            while self._late.is_due():
                self._backward_late(self._late, batch.step)

    def _backward_late(self, late: LateGradients, step: int) -> None:
        """Learn from the oldest gradient."""
        batch, gradient = late.take()
        self.staleness = step - batch.step
        with self._throttle:
            has_gradients = late.source.backward_late(self.stage, batch, gradient)
        if has_gradients:
            self._send_back_and_update(batch)
        else:
            self._io.send_gradient(batch)

    def _send_back_and_update(self, batch: Batch) -> None:
        """Send the gradient of the inputs on its way, then update if that was all."""
        self._io.send_gradient(batch)
        if batch.is_last:
            with self._throttle:
                self.stage.update(self.gradient_source.lr_scale)

    def drain(self) -> None:
        """Learn from all gradients that are still to come back."""
        while self._late is not None and self._late:
            self._backward_late(self._late, self._late.newest_step)

    def poll_gradients(self) -> None:
        """Receive the gradients that have come back, without learning from them yet."""
        if self._late is not None:
            self._late.poll()

    def receive_gradients(self, up_to: int) -> None:
        """Receive all that the next stage has sent back, without learning from it."""
        if self._late is not None:
            self._late.receive(up_to)

    def state(self) -> StateTree:
        """Return batches without a gradient, and gradients not yet learned from.

        Also what the microbatches of an unfinished step have left in the parameters.
        """
        return {
            "sums": [pack_tensor(each.grad) for each in self.stage.blocks.parameters()],
            "late": None if self._late is None else self._late.state(),
            "staleness": self.staleness,
        }

    def load_state(self, state: StateTree) -> None:
        """Continue with the batches and gradients that were under way."""
        if self._late is not None:
            self._late.load_state(self.stage, state["late"])
        self.staleness = state["staleness"]
        for parameter, gradient in zip(self.stage.blocks.parameters(), state["sums"], strict=True):
            parameter.grad = unpack_optional(gradient, self.stage.device)

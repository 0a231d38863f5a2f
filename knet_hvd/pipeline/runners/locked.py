"""Run a stage that waits for true gradients, microbatches as a schedule orders them."""

from collections.abc import Sequence

from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.comm.throttle import Throttle
from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.gradient_source import GradientSource, LateGradientSource
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.runners.schedules import Action
from knet_hvd.pipeline.runners.stage_io import StageIO, split_batch
from knet_hvd.pipeline.stage import Batch, Stage


class LockedRunner(Runner):
    """Run all microbatches of a step, then update: nothing is under way between steps."""

    def __init__(
        self,
        stage: Stage,
        gradient_source: GradientSource,
        io: StageIO,
        actions: Sequence[Action],
        throttle: Throttle,
    ) -> None:
        """Take the schedule of this stage.

        Args:
            stage: The stage.
            gradient_source: The last stage's `LossHead`, or `TrueGradient`.
            io: To and from its neighbors.
            actions: The passes of a step.
            throttle: Makes this rank slower, for tests.
        """
        super().__init__(stage, gradient_source)
        self._io = io
        self._actions = actions
        self._throttle = throttle
        self._num_microbatches = sum(a.kind == "forward" for a in actions)

    def step(
        self, step: int, inputs: Activation | None, targets: Tensor, mean_over: float | None = None
    ) -> None:
        """Train on one batch; the weights change once all of it has come back."""
        parts = split_batch(step, inputs, targets, self._num_microbatches, mean_over)
        batches: dict[int, Batch] = {}
        for kind, index in self._actions:
            if kind == "forward":
                batch = batches[index] = self._io.receive_batch(parts[index])
                with self._throttle:
                    output = self.gradient_source.forward(self.stage, batch)
                self._io.send_output(batch, output)
                del output  # only the gradient source knows how long it is needed
            else:
                self._backward(batches.pop(index))
        with self._throttle:
            self.stage.update()

    def _backward(self, batch: Batch) -> None:
        source = self.gradient_source
        if isinstance(source, LateGradientSource):
            gradient = self._io.receive_gradient(batch)
            with self._throttle:
                source.backward_late(self.stage, batch, gradient)
        else:
            with self._throttle:
                source.backward_now(self.stage, batch)
        self._io.send_gradient(batch)

    def drain(self) -> None:
        """Do nothing: all of a step comes back within the step."""

    def poll_gradients(self) -> None:
        """Do nothing: between two steps nothing comes back."""

    def receive_gradients(self, up_to: int) -> None:
        """Do nothing: between two steps nothing is under way."""

    def state(self) -> StateTree:
        """Return an empty tree: between two steps nothing is under way."""
        return {}

    def load_state(self, state: StateTree) -> None:
        """Do nothing: between two steps nothing is under way."""

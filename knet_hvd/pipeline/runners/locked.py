"""Run a stage that waits for true gradients, microbatches as a schedule orders them."""

from collections.abc import Sequence

from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.comm.throttle import Throttle
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.runners.base import Runner
from knet_hvd.pipeline.runners.schedules import Action
from knet_hvd.pipeline.stage import Batch, Stage


class LockedRunner(Runner):
    """Run all microbatches of a step, then update."""

    def __init__(
        self,
        stage: Stage,
        decoupler: Decoupler,
        links: StageLinks,
        log_every: int,
        throttle: Throttle,
        actions: Sequence[Action],
    ) -> None:
        """Take the schedule of this stage.

        Args:
            stage: The stage.
            decoupler: `Backprop`, or the last stage's `Objective`.
            links: To its neighbours.
            log_every: Steps between those whose metrics are wanted.
            throttle: Makes this rank slower, for tests.
            actions: The passes of a step.
        """
        super().__init__(stage, decoupler, links, log_every, throttle)
        self._actions = actions
        self._num_microbatches = sum(a.kind == "forward" for a in actions)

    def step(self, step: int, inputs: Tensor | None, labels: Tensor) -> None:
        """Train on one batch; the weights change once all of it has come back."""
        parts = labels.chunk(self._num_microbatches)
        images = None if inputs is None else inputs.chunk(self._num_microbatches)
        batches: dict[int, Batch] = {}
        for kind, index in self._actions:
            if kind == "forward":
                own = None if images is None else images[index]
                batch = self._batch(step, index, parts[index], len(labels), own)
                self._forward(batch)
                batches[index] = batch
            else:
                self._backward(batches.pop(index))
        with self._throttle:
            self.stage.update()

    def drain(self) -> None:
        """Do nothing: all of a step comes back within the step."""

    def take_in(self) -> None:
        """Do nothing: between two steps nothing comes back."""

    def settle(self, num_sent: int) -> None:
        """Do nothing: between two steps nothing is under way."""

    def state(self) -> StateTree:
        """Return an empty tree: between two steps nothing is under way."""
        return {}

    def load_state(self, state: StateTree) -> None:
        """Do nothing: between two steps nothing is under way."""

    def _backward(self, batch: Batch) -> None:
        gradient = self._receive_gradient(batch)
        with self._throttle:
            if gradient is None:
                self.decoupler.learn(self.stage, batch)
            else:
                self.decoupler.learn_from(self.stage, batch, gradient)
        self._send_back(batch)

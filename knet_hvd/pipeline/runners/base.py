"""What all runners of a stage share: take a batch in, pass it on, send back."""

from abc import ABC, abstractmethod

from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.comm.throttle import Throttle
from knet_hvd.pipeline.decouplers import Decoupler
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.stage import Batch, Stage


class Runner(ABC):
    """Run the training steps of one stage.

    Attributes:
        stage: The stage.
        decoupler: Where its gradients come from.
        staleness: Steps between the last gradient that came back and its batch.
    """

    def __init__(
        self,
        stage: Stage,
        decoupler: Decoupler,
        links: StageLinks,
        log_every: int,
        throttle: Throttle,
    ) -> None:
        """Take what a stage runs with.

        Args:
            stage: The stage.
            decoupler: Where its gradients come from.
            links: To its neighbours.
            log_every: Steps between those whose metrics are wanted.
            throttle: Makes this rank slower, for tests.
        """
        self.stage = stage
        self.decoupler = decoupler
        self.staleness = 0
        self._links = links
        self._log_every = log_every
        self._throttle = throttle

    @abstractmethod
    def step(self, step: int, inputs: Tensor | None, labels: Tensor) -> None:
        """Train on one batch.

        Args:
            step: The number of the step.
            inputs: fp32 [n, c, h, w] on the first stage, None on others.
            labels: int64 [n].

        Raises:
            KnetError: If a neighbour is lost or sends something else.
        """

    @abstractmethod
    def drain(self) -> None:
        """Learn from all gradients that are still to come back."""

    @abstractmethod
    def take_in(self) -> None:
        """Receive what has come back, without learning from it yet.

        To be called while this rank waits for all others: it would otherwise block the
        next stage, which sends back.
        """

    @abstractmethod
    def settle(self, num_sent: int) -> None:
        """Receive all that the next stage has sent back, without learning from it.

        Args:
            num_sent: Gradients that the next stage has sent since the start.
        """

    @abstractmethod
    def state(self) -> StateTree:
        """Return what is under way on this stage; after `settle`."""

    @abstractmethod
    def load_state(self, state: StateTree) -> None:
        """Go on with what was under way.

        Args:
            state: What `state` returned.
        """

    def _batch(
        self, step: int, microbatch: int, labels: Tensor, num_samples: int, inputs: Tensor | None
    ) -> Batch:
        """Return a batch with its inputs, received unless they are given."""
        if self._links.inputs is not None:
            inputs = self._links.inputs.receive(step, microbatch)
        if inputs is not None and self._links.input_gradients is not None:
            inputs.requires_grad_()
        observed = step % self._log_every == 0
        return Batch(step, microbatch, labels, num_samples, observed, inputs)

    def _forward(self, batch: Batch) -> None:
        """Run forward and send the output on."""
        with self._throttle:
            self.decoupler.forward(self.stage, batch)
        if self._links.outputs is not None and batch.output is not None:
            self._links.outputs.send(batch.output, batch.step, batch.microbatch)

    def _send_back(self, batch: Batch) -> None:
        """Send the gradient of the inputs to the stage before, which may need it."""
        gradient = batch.take_input_gradient()
        if self._links.input_gradients is not None and gradient is not None:
            self._links.input_gradients.send(gradient, batch.step, batch.microbatch)

    def _receive_gradient(self, batch: Batch) -> Tensor | None:
        """Return the gradient of the output, if the next stage sends any."""
        link = self._links.output_gradients
        return None if link is None else link.receive(batch.step, batch.microbatch)

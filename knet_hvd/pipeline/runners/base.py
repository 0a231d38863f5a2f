"""The interface of runners: what a training loop calls on each rank."""

from abc import ABC, abstractmethod

from torch import Tensor

from knet_hvd.checkpoint import StateTree
from knet_hvd.pipeline.activation import Activation
from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.stage import Stage


class Runner(ABC):
    """Run the training steps of one stage.

    Attributes:
        stage: The stage.
        gradient_source: Where its gradients come from.
        staleness: Steps between the last gradient that came back and its batch.
    """

    def __init__(self, stage: Stage, gradient_source: GradientSource) -> None:
        """Take what a rank trains."""
        self.stage = stage
        self.gradient_source = gradient_source
        self.staleness = 0

    @abstractmethod
    def step(
        self, step: int, inputs: Activation | None, targets: Tensor, mean_over: float | None = None
    ) -> None:
        """Train on one batch.

        Args:
            step: The number of the step.
            inputs: [n, ...] on the first stage, None on others.
            targets: [n, ...].
            mean_over: What losses are a mean over; n if not given.

        Raises:
            KnetError: If a neighbor is lost or sends something else.
        """

    @abstractmethod
    def drain(self) -> None:
        """Learn from all gradients that are still to come back."""

    @abstractmethod
    def poll_gradients(self) -> None:
        """Receive the gradients that have come back, without learning from them yet.

        Call it while this rank waits for all others: it would otherwise block the next
        stage, which sends back.
        """

    @abstractmethod
    def receive_gradients(self, up_to: int) -> None:
        """Receive all that the next stage has sent back, without learning from it.

        Args:
            up_to: Gradients that the next stage has sent since the start.
        """

    @abstractmethod
    def state(self) -> StateTree:
        """Return what is under way on this stage; call `receive_gradients` before."""

    @abstractmethod
    def load_state(self, state: StateTree) -> None:
        """Continue with what was under way when `state` returned this."""

"""What crosses between two stages: an activation or its gradient, a link for each tensor."""

from collections.abc import Sequence

from torch import Tensor

from knet_hvd.comm import ReceiveLink, SendLink
from knet_hvd.errors import KnetError
from knet_hvd.pipeline.activation import Activation, Signature, tensors_of


class SendCrossing:
    """Send activations, or gradients, one way."""

    def __init__(self, links: Sequence[SendLink]) -> None:
        """Take a link for each tensor."""
        self._links = list(links)

    def send(
        self, activation: Activation, step: int, microbatch: int = 0, checksum: int = 0
    ) -> None:
        """Send all tensors; waits while all buffers are under way.

        Args:
            activation: As many tensors as agreed.
            step: The training step that they belong to.
            microbatch: Their microbatch.
            checksum: Of the targets; 0 for none.

        Raises:
            KnetError: If a tensor is another than agreed, or no buffer becomes free.
        """
        tensors = tensors_of(activation)
        self._check(tensors)
        for link, tensor in zip(self._links, tensors, strict=True):
            link.send(tensor, step, microbatch, checksum)

    def _check(self, tensors: Sequence[Tensor]) -> None:
        expected = [link.spec.dtype for link in self._links]
        if [each.dtype for each in tensors] != expected:
            found = ", ".join(str(each.dtype) for each in tensors)
            raise KnetError(
                f"{self._links[0].spec}: expected {', '.join(map(str, expected))}, as the example "
                f"showed, got {found}"
            )

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of the largest activation that may cross, headers included."""
        return sum(link.spec.frame_bytes for link in self._links)

    @property
    def sent_bytes(self) -> int:
        """Return the bytes sent since the start, headers included."""
        return sum(link.sent_bytes for link in self._links)

    @property
    def sent_frames(self) -> int:
        """Return the activations sent since the start."""
        return self._links[0].sent_frames

    def flush(self) -> None:
        """Wait until the other end has begun to take everything."""
        for link in self._links:
            link.flush()


class ReceiveCrossing:
    """Receive activations, or gradients, in the order in which they were sent.

    Attributes:
        signature: What comes, the largest that there is.
    """

    def __init__(self, links: Sequence[ReceiveLink], signature: Signature) -> None:
        """Take a link for each tensor, and what they make together."""
        self._links = list(links)
        self.signature = signature

    def ready(self) -> bool:
        """Return whether `receive` would return at once."""
        return all(link.ready() for link in self._links)

    def receive(self, step: int, microbatch: int = 0, checksum: int = 0) -> Activation:
        """Return the next activation, waiting for it if need be.

        Args:
            step: The step that it must belong to.
            microbatch: The microbatch that it must belong to.
            checksum: Of this rank's targets; 0 for none.

        Raises:
            KnetError: If none comes in time, or it is not the one that was expected.
        """
        tensors = tuple(link.receive(step, microbatch, checksum) for link in self._links)
        return tensors if self.signature.is_tuple else tensors[0]

    @property
    def frame_bytes(self) -> int:
        """Return the bytes of the largest activation that may cross, headers included."""
        return sum(link.spec.frame_bytes for link in self._links)

    @property
    def received_frames(self) -> int:
        """Return the activations received since the start."""
        return self._links[-1].received_frames

    def close(self) -> None:
        """Take posted receives back; nothing may be under way any more."""
        for link in self._links:
            link.close()

"""What a stage receives from its neighbors and sends to them."""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from knet_hvd.devices import CPU
from knet_hvd.devices.moving import moved
from knet_hvd.pipeline.activation import (
    Activation,
    on_device,
    require_gradients,
    split_rows,
)
from knet_hvd.pipeline.links import StageLinks
from knet_hvd.pipeline.stage import Batch

_CHECKED_STEPS = 16
_CHECKED_EVERY = 100


class Part(NamedTuple):
    """One microbatch of a step, as a rank has it before anything crosses."""

    step: int
    microbatch: int
    inputs: Activation | None
    """[n, ...] each on the first stage, None on others."""
    targets: Tensor
    num_samples: float
    """Samples of the whole step, a mean over the replicas."""
    is_last: bool


def split_batch(
    step: int,
    inputs: Activation | None,
    targets: Tensor,
    num_microbatches: int,
    num_samples: float | None = None,
) -> list[Part]:
    """Return the microbatches of a step.

    Args:
        step: The number of the step.
        inputs: [n, ...] on the first stage, None on others.
        targets: int64 [n, ...].
        num_microbatches: How many parts; fewer if there are fewer samples.
        num_samples: What losses are a mean over; n if not given.
    """
    whole = len(targets) if num_samples is None else num_samples
    targets_of = targets.chunk(num_microbatches)
    inputs_of: Sequence[Activation | None] = [None] * len(targets_of)
    if inputs is not None:
        inputs_of = split_rows(inputs, num_microbatches)
    last = len(targets_of) - 1
    return [
        Part(step, index, own_inputs, own_targets, whole, index == last)
        for index, (own_inputs, own_targets) in enumerate(zip(inputs_of, targets_of, strict=True))
    ]


class StageIO:
    """Move batches, outputs and gradients between a stage and its neighbors."""

    def __init__(self, links: StageLinks, log_every: int = 1, device: torch.device = CPU) -> None:
        """Take the links of a rank.

        Args:
            links: To its neighbors.
            log_every: Steps between those whose metrics are wanted.
            device: Of the stage; what comes in is moved there.
        """
        self._device = device
        self._links = links
        self._log_every = log_every

    @property
    def sends_gradients(self) -> bool:
        """Return whether the stage before waits for the gradients of this one's inputs."""
        return self._links.input_gradients is not None

    @property
    def num_received_gradients(self) -> int:
        """Return how many gradients have come from the next stage since the start."""
        link = self._links.output_gradients
        return 0 if link is None else link.received_frames

    def receive_batch(
        self, part: Part, num_updates_until_gradient: int = 0, arrived_share: float = 0.0
    ) -> Batch:
        """Return a microbatch with its inputs, received unless this is the first stage.

        Args:
            part: What this rank has of it.
            num_updates_until_gradient: See `Batch`.
            arrived_share: See `Batch`.

        Raises:
            KnetError: If the stage before is lost or sends something else.
            ValueError: If the first stage gets no inputs.
        """
        inputs = part.inputs
        if self._links.inputs is not None:
            checksum = _checksum(part.step, part.targets)
            inputs = self._links.inputs.receive(part.step, part.microbatch, checksum)
            if self.sends_gradients:
                require_gradients(inputs, self._links.inputs.signature.gradients)
        if inputs is None:
            raise ValueError("inputs: expected a tensor on the first stage, got None")
        return Batch(
            step=part.step,
            microbatch=part.microbatch,
            targets=moved(part.targets, self._device),
            inputs=on_device(inputs, self._device),
            num_samples=part.num_samples,
            log_metrics=part.step % self._log_every == 0,
            is_last=part.is_last,
            num_updates_until_gradient=num_updates_until_gradient,
            arrived_share=arrived_share,
        )

    def send_output(self, batch: Batch, output: Activation) -> None:
        """Send the output to the next stage, if there is one."""
        if self._links.outputs is not None:
            checksum = _checksum(batch.step, batch.targets)
            self._links.outputs.send(output, batch.step, batch.microbatch, checksum)

    def gradient_is_there(self) -> bool:
        """Return whether `receive_gradient` would return at once."""
        link = self._links.output_gradients
        return link is not None and link.ready()

    def receive_gradient(self, batch: Batch) -> Activation:
        """Return the gradient of a batch's output, in the order in which outputs were sent.

        Raises:
            KnetError: If the next stage is lost or sends something else.
            ValueError: If the next stage sends no gradients.
        """
        link = self._links.output_gradients
        if link is None:
            raise ValueError("the next stage sends no gradients")
        return link.receive(batch.step, batch.microbatch)

    def send_gradient(self, batch: Batch) -> None:
        """Send the gradient of the inputs to the stage before, if that waits for it."""
        gradient = batch.take_input_gradient()
        if self._links.input_gradients is not None and gradient is not None:
            self._links.input_gradients.send(gradient, batch.step, batch.microbatch)


def _checksum(step: int, targets: Tensor) -> int:
    """Return what tells whether two stages have the same targets; 0 to compare none.

    Stages whose loaders shuffle differently train on the wrong targets without any error: that
    shows in the first steps, and a loader that loses its order later shows soon after.
    """
    if step >= _CHECKED_STEPS and step % _CHECKED_EVERY:
        return 0
    values = targets.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return zlib.crc32(values.numpy().data) or 1

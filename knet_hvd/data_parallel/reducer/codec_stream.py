"""Where reductions run: on a GPU beside backward, on a CPU in the caller's own time.

By the time that scales have been shared, the host has queued the rest of backward on the
GPU. On backward's stream, codes would be made after all of that. So reductions have a
stream of their own, and every tensor that both streams touch crosses in one of two ways:

- The caller's to ours: `take_over`. Our stream first waits for all that the caller has
  queued. The allocator keeps the tensors' memory, even if the caller drops them.
- Ours to the caller's: `hand_over`. The same the other way round.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class CallersStream:
    """Run reductions among the caller's own work, as on a CPU; crossing costs nothing."""

    def running(self) -> AbstractContextManager[object]:
        """Return a context in which tensors are worked on in this stream."""
        return nullcontext()

    def note_gradient(self) -> None:
        """Note that the current stream has made a gradient, which may be taken over later."""

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """Wait for what the caller has queued; from then on use its tensors."""

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Have the caller wait for what was queued here; from then on it uses the tensors."""


class CodecStream(CallersStream):
    """Run reductions beside the caller's work, on a CUDA stream of high priority."""

    def __init__(self, device: torch.device) -> None:
        """Make a stream on a CUDA device."""
        self._device = device
        self._stream = torch.cuda.Stream(device, priority=-1)
        self._makers: set[torch.cuda.Stream] = set()

    def running(self) -> AbstractContextManager[object]:
        """See ``CallersStream.running``."""
        return torch.cuda.stream(self._stream)

    def note_gradient(self) -> None:
        """See ``CallersStream.note_gradient``; backward may use several streams."""
        self._makers.add(torch.cuda.current_stream(self._device))

    def take_over(self, tensors: Iterable[Tensor]) -> None:
        """See ``CallersStream.take_over``."""
        self.note_gradient()
        for maker in self._makers:
            self._stream.wait_stream(maker)
        self._makers.clear()
        for tensor in _in_memory(tensors):
            tensor.record_stream(self._stream)

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """See ``CallersStream.hand_over``."""
        caller = torch.cuda.current_stream(self._device)
        caller.wait_stream(self._stream)
        for tensor in _in_memory(tensors):
            tensor.record_stream(caller)


def _in_memory(tensors: Iterable[Tensor]) -> Iterator[Tensor]:
    """Iterate over what has memory: of a sparse tensor its two parts."""
    for tensor in tensors:
        if tensor.is_sparse:
            yield from (tensor._indices(), tensor._values())
        else:
            yield tensor


def stream_for(device: torch.device) -> CallersStream:
    """Return where reductions of gradients on this device run."""
    return CodecStream(device) if device.type == "cuda" else CallersStream()


class CodecStreams:
    """The streams of all devices that parameters lie on, one each."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        """Make the streams."""
        self._streams = {device: stream_for(device) for device in {t.device for t in parameters}}

    def of(self, parameter: Tensor) -> CallersStream:
        """Return the stream in which this parameter's gradient is reduced."""
        return self._streams[parameter.device]

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """Have the caller wait for all reductions; from then on it uses these tensors."""
        made = list(tensors)
        for device, stream in self._streams.items():
            stream.hand_over([tensor for tensor in made if tensor.device == device])

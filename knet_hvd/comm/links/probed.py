"""A link for tensors whose number, shapes and dtypes the other end does not know before."""

from collections.abc import Sequence

from mpi4py import MPI
from torch import Tensor

from knet_hvd.comm.links.encodings import decode, encode
from knet_hvd.comm.links.frames import (
    HEADER_BYTES,
    Header,
    padded_bytes,
    read_header,
    split_frames,
    write_header,
)
from knet_hvd.comm.links.slot import Slot
from knet_hvd.comm.world import World
from knet_hvd.errors import KnetError

DEFAULT_LIMIT_BYTES = 2**30


class ProbedLink:
    """Carry lists of tensors one way, such as the targets of each step.

    A message is the frames of all tensors of a list. The sender's buffers grow with what it
    sends, and the receiver probes for a message and then makes room for it, so nothing is
    agreed but a limit. A message that is sent synchronously (`MPI_Issend`) is over when the
    other end begins to take it: no more than ``credits`` messages are under way.

    Attributes:
        sent_bytes: Bytes sent since the start, headers included.
    """

    def __init__(
        self,
        world: World,
        *,
        name: str,
        source: int,
        target: int,
        tag: int,
        credits: int = 4,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> None:
        """Open this rank's end; nothing crosses yet.

        Args:
            world: This process, whose rank is ``source`` or ``target``.
            name: What the link carries, for messages.
            source: The rank that sends.
            target: The rank that receives.
            tag: Tells apart the links between two ranks.
            credits: Messages that may be under way.
            limit_bytes: The longest message.

        Raises:
            ValueError: If a number is too small or large.
        """
        if credits < 1:
            raise ValueError(f"credits: expected at least 1, got {credits}")
        if not HEADER_BYTES <= limit_bytes < 2**31:  # MPI's counts
            raise ValueError(
                f"limit_bytes: expected {HEADER_BYTES} to {2**31 - 1}, got {limit_bytes}"
            )
        self.sent_bytes = 0
        self._world = world
        self._name, self._source, self._target, self._tag = name, source, target, tag
        self._limit_bytes = limit_bytes
        self._slots = [Slot(0) for _ in range(credits if world.rank == source else 1)]
        self._num_sent = 0
        self._status = MPI.Status()

    def __str__(self) -> str:
        return f"{self._name} from rank {self._source} to rank {self._target}"

    def send(self, tensors: Sequence[Tensor], step: int, microbatch: int = 0) -> None:
        """Copy tensors to the next free buffer and start sending them.

        Waits while all buffers are under way. The tensors may be changed afterwards.

        Args:
            tensors: At least one, of any shapes, on any device.
            step: The training step that they belong to.
            microbatch: Their microbatch.

        Raises:
            KnetError: If they are larger than the limit, or no buffer becomes free.
            TypeError: If a dtype is none of `DTYPES`.
            ValueError: If there is no tensor, or one has more than 8 dimensions.
        """
        if not tensors:
            raise ValueError("tensors: expected at least one, got none")
        num_bytes = sum(padded_bytes(HEADER_BYTES + tensor.nbytes) for tensor in tensors)
        self._check_size(num_bytes)
        slot = self._slots[self._num_sent % len(self._slots)]
        self._wait(slot)
        slot.grow(num_bytes)
        start = 0
        for tensor in tensors:
            frame = slot.buffer[start:]
            encoding, length = encode(tensor, "raw", frame[HEADER_BYTES:])
            shape = tuple(tensor.shape)
            write_header(Header(step, microbatch, shape, encoding, length, tensor.dtype), frame)
            start += padded_bytes(HEADER_BYTES + length)
        message = [slot.array[:num_bytes], MPI.BYTE]
        slot.request = self._world.comm.Issend(message, self._target, self._tag)
        self._num_sent += 1
        self.sent_bytes += num_bytes

    def receive(self, step: int, microbatch: int = 0) -> list[Tensor]:
        """Return the next list of tensors, waiting for it if need be.

        Args:
            step: The step that they must belong to.
            microbatch: The microbatch that they must belong to.

        Returns:
            The tensors on the CPU, in memory of their own.

        Raises:
            KnetError: If none come in time, or they are not those that were expected.
        """
        slot = self._slots[0]
        what = f"rank {self._target}: {self}"
        self._world.waiter.until(self._message_is_there, what)
        num_bytes = self._status.Get_count(MPI.BYTE)
        self._check_size(num_bytes)
        slot.grow(num_bytes)
        message = [slot.array[:num_bytes], MPI.BYTE]
        slot.request = self._world.comm.Irecv(message, self._source, self._tag)
        self._wait(slot)
        tensors = []
        for frame in split_frames(slot.buffer[:num_bytes]):
            header = read_header(frame)
            if header.encoding != "raw" or (header.step, header.microbatch) != (step, microbatch):
                raise KnetError(
                    f"{self}: expected step {step}, microbatch {microbatch}, got step "
                    f"{header.step}, microbatch {header.microbatch} as {header.encoding}"
                )
            tensors.append(decode(frame[HEADER_BYTES:], "raw", header.shape, header.dtype))
        return tensors

    def _message_is_there(self) -> bool:
        return bool(self._world.comm.Iprobe(self._source, self._tag, self._status))

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > self._limit_bytes:
            raise KnetError(
                f"{self}: expected at most {self._limit_bytes} bytes at once, got {num_bytes}"
            )

    def _wait(self, slot: Slot) -> None:
        self._world.waiter.until(slot.done, f"rank {self._world.rank}: {self}")

    def flush(self) -> None:
        """Wait until the other end has begun to take every message; nothing on the target.

        Raises:
            KnetError: If it does not in time.
        """
        for slot in self._slots:
            self._wait(slot)

    def close(self) -> None:
        """End this rank's end: see ``flush``.

        Raises:
            KnetError: As ``flush``.
        """
        self.flush()

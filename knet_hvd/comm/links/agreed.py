"""Links on which each tensor is at most as large as both ends have agreed.

Both ends hold a ring of as many buffers as the link has credits. The receiver posts all
of its buffers in advance, and the sender sends synchronously (`MPI_Issend`): a send is
over, and its buffer free, only when the receiver has begun to take it. So a posted
buffer is a credit, no more than two rings of frames are under way, and a sender that is
faster than its receiver waits instead of filling memory. No message is needed to return
a credit.

The first message on a link is the size of the sender's frames, and the receiver posts
nothing before it has compared it with its own: MPI may write past a buffer that is too
small before it reports an error (Open MPI 5.0 does). That message itself is probed.
"""

import torch
from mpi4py import MPI
from torch import Tensor

from knet_hvd.comm.links.encodings import decode, encode, may_carry
from knet_hvd.comm.links.frames import HEADER_BYTES, Header, read_header, write_header
from knet_hvd.comm.links.slot import Slot
from knet_hvd.comm.links.spec import LinkSpec
from knet_hvd.comm.links.staging import Staging
from knet_hvd.comm.waiting import poll
from knet_hvd.comm.world import World
from knet_hvd.devices import CPU
from knet_hvd.errors import KnetError


class SendLink:
    """Send tensors one way.

    Attributes:
        spec: What the other end agreed on.
        sent_bytes: Bytes sent since the start, headers included.
        sent_frames: Frames sent since the start.
    """

    def __init__(self, world: World, spec: LinkSpec, device: torch.device = CPU) -> None:
        """Take the buffers.

        Args:
            world: This process; its rank is ``spec.source``.
            spec: Agreed with the other end before.
            device: Of the tensors that will be sent.
        """
        self.spec = spec
        self.sent_bytes = self.sent_frames = 0
        self._world = world
        self._staging = Staging(device)
        pins = self._staging.pins
        self._slots = [Slot(spec.frame_bytes, pins) for _ in range(spec.credits)]
        self._size = Slot(8)
        self._size.buffer.view(torch.int64)[0] = spec.frame_bytes
        self._size.request = world.comm.Isend([self._size.array, MPI.BYTE], spec.target, spec.tag)

    def send(self, tensor: Tensor, step: int, microbatch: int = 0, checksum: int = 0) -> None:
        """Copy a tensor to the next free buffer and start sending it.

        Waits while all buffers are under way. The tensor may be changed afterwards.

        Args:
            tensor: Of the agreed dtype, at most as large as agreed.
            step: The training step that it belongs to.
            microbatch: Its microbatch.
            checksum: Of the targets that belong to it, for the other end to compare; below
                2^32, 0 for none.

        Raises:
            KnetError: If its shape or dtype is not as agreed, or no buffer becomes free.
        """
        shape = tuple(tensor.shape)
        self.spec.check_shape(shape)
        self.spec.check_dtype(tensor.dtype)
        slot = self._slots[self.sent_frames % len(self._slots)]
        self._world.waiter.until(slot.done, f"rank {self.spec.source}: {self.spec}")
        payload = slot.buffer[HEADER_BYTES:]
        with self._staging.leaving():
            encoding, num_bytes = encode(tensor, self.spec.encoding, payload)
        header = Header(step, microbatch, shape, encoding, num_bytes, tensor.dtype, checksum)
        write_header(header, slot.buffer)
        frame = slot.array[: HEADER_BYTES + num_bytes]
        slot.request = self._world.comm.Issend([frame, MPI.BYTE], self.spec.target, self.spec.tag)
        self.sent_frames += 1
        self.sent_bytes += frame.nbytes

    def flush(self) -> None:
        """Wait until the other end has begun to take every frame.

        Raises:
            KnetError: If it does not in time.
        """
        for slot in (self._size, *self._slots):
            self._world.waiter.until(slot.done, f"rank {self.spec.source}: {self.spec}")


class ReceiveLink:
    """Receive tensors from one rank, in the order in which they were sent.

    Attributes:
        spec: What the other end agreed on.
        received_frames: Frames received since the start.
    """

    def __init__(self, world: World, spec: LinkSpec, device: torch.device = CPU) -> None:
        """Wait for the size of the sender's frames, then post a receive for every buffer.

        A rank that both sends and receives opens the links on which it sends first.

        Args:
            world: This process; its rank is ``spec.target``.
            spec: Agreed with the other end before.
            device: Where received tensors are wanted.
        """
        self.spec = spec
        self._world = world
        self.received_frames = 0
        self._staging = Staging(device)
        pins = self._staging.pins
        self._slots = [Slot(spec.frame_bytes, pins) for _ in range(spec.credits)]
        world.waiter.until(self._size_is_checked, f"rank {spec.target}: {spec}")
        for slot in self._slots:
            self._post(slot)

    def _size_is_checked(self) -> bool:
        """Return whether the sender has said the size of its frames.

        Raises:
            KnetError: If it is another size than that of the buffers here.
        """
        status = MPI.Status()
        message = self._world.comm.Improbe(self.spec.source, self.spec.tag, status)
        if message is None:
            return False
        size = torch.zeros(1, dtype=torch.int64)
        if status.Get_count(MPI.BYTE) != size.nbytes:
            raise KnetError(f"{self.spec}: expected the size of frames first: another release?")
        message.Recv([size.numpy(), MPI.BYTE])
        if int(size) != self.spec.frame_bytes:
            raise KnetError(
                f"{self.spec}: expected frames of {self.spec.frame_bytes} bytes, got "
                f"{int(size)}: both ends have to agree on shape, dtype and encoding"
            )
        return True

    def _post(self, slot: Slot) -> None:
        slot.request = self._world.comm.Irecv(
            [slot.array, MPI.BYTE], self.spec.source, self.spec.tag
        )

    def ready(self) -> bool:
        """Return whether `receive` would return at once.

        Raises:
            KnetError: If MPI reports an error.
        """
        return poll(self._oldest().done, str(self.spec))

    def receive(self, step: int, microbatch: int = 0, checksum: int = 0) -> Tensor:
        """Return the next tensor, waiting for it if need be.

        Args:
            step: The step that it must belong to.
            microbatch: The microbatch that it must belong to.
            checksum: Of the targets here; compared unless it or the sender's is 0.

        Returns:
            The tensor on the link's device, in memory of its own.

        Raises:
            KnetError: If none comes in time, it is not the one that was expected, or its
                sender has other targets.
        """
        slot = self._oldest()
        self._world.waiter.until(slot.done, f"rank {self.spec.target}: {self.spec}")
        frame = slot.buffer[: slot.status.Get_count(MPI.BYTE)]
        header = read_header(frame)
        self._check(header, step, microbatch, checksum)
        tensor = self._staging.arriving(lambda: self._decoded(frame, header))
        self._post(slot)
        self.received_frames += 1
        return tensor

    def _decoded(self, frame: Tensor, header: Header) -> Tensor:
        payload, device = frame[HEADER_BYTES:], self._staging.device
        return decode(payload, header.encoding, header.shape, header.dtype, device)

    def _check(self, header: Header, step: int, microbatch: int, checksum: int) -> None:
        """Raise unless a frame is the one that was expected."""
        spec = self.spec
        spec.check_shape(header.shape)
        spec.check_dtype(header.dtype)
        if not may_carry(spec.encoding, header.encoding):
            raise KnetError(f"{spec}: expected {spec.encoding}, got {header.encoding}")
        if (header.step, header.microbatch) != (step, microbatch):
            raise KnetError(
                f"{spec}: expected step {step}, microbatch {microbatch}, got step "
                f"{header.step}, microbatch {header.microbatch}"
            )
        if header.checksum != checksum and header.checksum and checksum:
            raise KnetError(
                f"targets of step {step} differ between rank {spec.source} and rank "
                f"{spec.target}: does every rank's loader draw the same order? Give the loader "
                'a generator with the same seed on all ranks, or use targets="send"'
            )

    def _oldest(self) -> Slot:
        return self._slots[self.received_frames % len(self._slots)]

    def close(self) -> None:
        """Take the posted receives back; nothing may be under way any more."""
        for slot in self._slots:
            if slot.request != MPI.REQUEST_NULL:  # it is after a frame that was refused
                slot.request.Cancel()
                slot.request.Wait()

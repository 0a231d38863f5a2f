"""The gradient reducer: runs every bucket from gradients to averaged gradients.

One step of a ternary bucket, as the buckets fill during backward:

1. statistics of each gradient (plus its residual), and this rank's scales;
2. shared scales: the maximum over ranks;
3. ternary codes, packed into the bucket's payload;
4. exchange and decode, see ``exchanges.py``.

Nothing waits until ``finish``: operations are started where they can be, and gone on with
where they have ended. Horovod pairs operations by name, so ranks need not start them in the
same order.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.compression import ErrorFeedback, TernaryCodec, local_scales
from knet_hvd.config import KnetError
from knet_hvd.data_parallel.buckets import FloatBucket, TernaryBucket
from knet_hvd.data_parallel.exchanges import Exchange, Steps
from knet_hvd.data_parallel.snapshots import GradientSnapshot, take_snapshot
from knet_hvd.performance import allreduce_bytes


@dataclass(slots=True)
class _InFlight:
    """A bucket's steps, and the Horovod operation that the next one waits for."""

    steps: Generator[int, Any, None]
    handle: int | None

    def advance(self, block: bool) -> bool:
        """Go on as far as possible, or to the end; return whether it is reached."""
        while self.handle is not None and (block or hvd.poll(self.handle)):
            try:
                self.handle = self.steps.send(hvd.synchronize(self.handle))
            except StopIteration:
                self.handle = None
        return self.handle is None


class GradientReducer:
    """Average the gradients of all ranks, bucket by bucket."""

    def __init__(
        self,
        codec: TernaryCodec,
        exchange: Exchange,
        ternary_buckets: Sequence[TernaryBucket],
        float_buckets: Sequence[FloatBucket],
        float_compression: Any,
    ) -> None:
        """Keep the plan; nothing is exchanged yet.

        Args:
            codec: Turns gradients into codes.
            exchange: Moves the codes.
            ternary_buckets: See ``plan_buckets``.
            float_buckets: See ``plan_buckets``.
            float_compression: Horovod compressor for the float buckets.
        """
        self.codec = codec
        self.exchange = exchange
        self.error_feedback = ErrorFeedback() if codec.config.error_feedback else None
        self.step = 0
        self.scales: dict[str, Tensor] = {}
        self.snapshots: dict[str, GradientSnapshot] = {}
        self.snapshot_names: frozenset[str] = frozenset()
        self._buckets: list[TernaryBucket | FloatBucket] = [
            *ternary_buckets,
            *float_buckets,
        ]
        self._float_compression = float_compression
        self._in_flight: dict[int, _InFlight] = {}
        self._done: set[int] = set()
        self._bucket_of = {
            parameter.tensor: number
            for number, bucket in enumerate(self._buckets)
            for parameter in bucket.parameters
        }
        self._missing = [set(self._tensors(b)) for b in range(len(self._buckets))]

    def _tensors(self, number: int) -> list[Tensor]:
        return [parameter.tensor for parameter in self._buckets[number].parameters]

    @property
    def is_busy(self) -> bool:
        """Whether operations of this step were started and not yet finished."""
        return bool(self._in_flight or self._done)

    def mark_ready(self, parameter: Tensor) -> None:
        """Take note that a gradient is complete; start its bucket if it was the last."""
        number = self._bucket_of[parameter]
        self._missing[number].discard(parameter)
        if not self._missing[number] and number not in self._in_flight:
            self._start(number)
        self._advance_all()

    def _advance_all(self) -> None:
        for number in list(self._in_flight):
            if self._in_flight[number].advance(block=False):
                del self._in_flight[number]
                self._done.add(number)

    def _start(self, number: int) -> None:
        bucket = self._buckets[number]
        for parameter in bucket.parameters:
            tensor = parameter.tensor
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            elif tensor.grad.layout is not torch.strided:
                raise KnetError(
                    f"parameter {parameter.name}: sparse gradient; pass "
                    "sparse_as_dense=True to DistributedOptimizer"
                )
        if isinstance(bucket, TernaryBucket):
            steps = self._ternary_steps(bucket)
        else:
            steps = self._float_steps(bucket)
        self._in_flight[number] = _InFlight(steps, next(steps))

    def finish(self) -> None:
        """Wait until every parameter has its averaged gradient; ends the step.

        Parameters that got no gradient on this rank take part with zeros.
        """
        for number in range(len(self._buckets)):
            if number not in self._in_flight and number not in self._done:
                self._start(number)
        while self._in_flight:
            self._in_flight[min(self._in_flight)].advance(block=True)
            self._advance_all()
        self.reset()
        self.step += 1

    def reset(self) -> None:
        """Forget which gradients have arrived in this step."""
        self._in_flight.clear()
        self._done.clear()
        self._missing = [set(self._tensors(b)) for b in range(len(self._buckets))]

    def _ternary_steps(self, bucket: TernaryBucket) -> Steps:
        gradients = [_gradient(p.tensor).contiguous() for p in bucket.parameters]
        originals = {
            part.parameter.name: gradient.to(torch.float32, copy=True)
            for part, gradient in zip(bucket.slices, gradients, strict=True)
            if part.parameter.name in self.snapshot_names
        }
        with torch.profiler.record_function("knet_hvd::statistics"):
            values = self._with_residuals(bucket, gradients)
            config = self.codec.config
            scales = torch.cat([local_scales(value, config) for value in values])
        scales = yield hvd.allreduce_async_(
            scales,
            op=hvd.Max,
            name=f"knet_hvd.scales.{bucket.index}",
            process_set=self.exchange.process_set,
        )
        with torch.profiler.record_function("knet_hvd::encode"):
            payload = self._encode(bucket, values, scales)
            self._keep_residuals(bucket, values, scales, payload)
        del values
        yield from self.exchange.run(bucket, payload, scales, gradients)
        for part, gradient in zip(bucket.slices, gradients, strict=True):
            name, tensor = part.parameter.name, part.parameter.tensor
            _store_gradient(tensor, gradient)
            self.scales[name] = scales.narrow(0, *part.scales)
            if name in originals:
                self.snapshots[name] = take_snapshot(
                    originals[name],
                    gradient,
                    self.scales[name],
                    payload.narrow(0, *part.payload),
                    self.codec,
                )

    def _with_residuals(
        self, bucket: TernaryBucket, gradients: list[Tensor]
    ) -> list[Tensor]:
        if self.error_feedback is None:
            return gradients
        return [
            self.error_feedback.add_to(parameter.name, gradient)
            for parameter, gradient in zip(bucket.parameters, gradients, strict=True)
        ]

    def _encode(
        self, bucket: TernaryBucket, values: list[Tensor], scales: Tensor
    ) -> Tensor:
        payload = torch.empty(
            bucket.payload_bytes, dtype=torch.uint8, device=bucket.device
        )
        for part, value in zip(bucket.slices, values, strict=True):
            self.codec.encode(
                value,
                scales.narrow(0, *part.scales),
                part.parameter.stream,
                self.step,
                payload.narrow(0, *part.payload),
            )
        return payload

    def _keep_residuals(
        self, bucket: TernaryBucket, values: list[Tensor], scales: Tensor, payload: Tensor
    ) -> None:
        if self.error_feedback is None:
            return
        for part, value in zip(bucket.slices, values, strict=True):
            sent = torch.empty_like(value)
            own = payload.narrow(0, *part.payload).unsqueeze(0)
            self.codec.decode(own, scales.narrow(0, *part.scales), sent)
            self.error_feedback.update(part.parameter.name, value, sent)

    def _float_steps(self, bucket: FloatBucket) -> Steps:
        gradients = [_gradient(p.tensor).to(bucket.dtype) for p in bucket.parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        compressed, context = self._float_compression.compress(flat)
        # Summed, then divided: as the codes are, and without a factor of the backend.
        total = yield hvd.allreduce_async_(
            compressed,
            op=hvd.Sum,
            name=f"knet_hvd.float.{bucket.index}.{bucket.dtype}",
            process_set=self.exchange.process_set,
        )
        total = self._float_compression.decompress(total, context)
        total /= self.exchange.divisor
        parts = total.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(bucket.parameters, parts, strict=True):
            gradient = _gradient(parameter.tensor)
            gradient.copy_(part.view(gradient.shape))

    def wire_bytes(self) -> float:
        """Return the bytes that this rank sends in a step, by formula."""
        num_ranks = self.exchange.num_ranks
        total = 0.0
        for bucket in self._buckets:
            if isinstance(bucket, TernaryBucket):
                total += self.exchange.wire_bytes(bucket)
                total += allreduce_bytes(4 * bucket.num_scales, num_ranks)
            else:
                size = torch.empty((), dtype=bucket.dtype).element_size()
                total += allreduce_bytes(size * bucket.numel, num_ranks)
        return total

    def uncompressed_wire_bytes(self) -> float:
        """Return the bytes that Horovod would send in the gradients' own dtypes."""
        return sum(
            allreduce_bytes(t.numel() * t.element_size(), self.exchange.num_ranks)
            for t in self._bucket_of
        )


def _gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        raise KnetError("a gradient was removed while it was being exchanged")
    return gradient.detach()


def _store_gradient(parameter: Tensor, gradient: Tensor) -> None:
    target = _gradient(parameter)
    if target.data_ptr() != gradient.data_ptr():  # it was not contiguous
        target.copy_(gradient)

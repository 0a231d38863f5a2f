"""The steps of one gradient bucket, from gradients to averaged gradients.

One step of a ternary bucket:

1. statistics of each gradient (plus its residual), and this rank's scales;
2. shared scales: the maximum over ranks;
3. ternary codes, packed into a payload for each chunk;
4. exchange and decode of each chunk, see ``exchange.py``.

Each kind of bucket is a generator that yields a Horovod handle wherever it has to wait.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.compression import ErrorFeedback, TernaryCodec, local_scales
from knet_hvd.data_parallel.buckets.plan import Chunk, FloatBucket, TernaryBucket
from knet_hvd.data_parallel.exchanges.base import Exchange, Steps
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot, take_snapshot
from knet_hvd.errors import KnetError


@dataclass(slots=True)
class BucketSteps:
    """Run buckets, and hold what lasts from one training step to the next.

    Attributes:
        codec: Turns gradients into codes.
        exchange: Moves the codes.
        float_compression: Horovod compressor for the float buckets.
        error_feedback: Residuals, or None.
        step: Number of the training step.
        scales: The latest shared scales by parameter name.
        snapshot_names: Parameters to take snapshots of.
        snapshots: The latest snapshots.
    """

    codec: TernaryCodec
    exchange: Exchange
    float_compression: Any
    error_feedback: ErrorFeedback | None = None
    step: int = 0
    scales: dict[str, Tensor] = field(default_factory=dict)
    snapshot_names: frozenset[str] = frozenset()
    snapshots: dict[str, GradientSnapshot] = field(default_factory=dict)

    def run(self, bucket: TernaryBucket | FloatBucket) -> Steps:
        """Start a bucket whose parameters all have a gradient."""
        if isinstance(bucket, TernaryBucket):
            return self._ternary_steps(bucket)
        return self._float_steps(bucket)

    def _ternary_steps(self, bucket: TernaryBucket) -> Steps:
        gradients = [_gradient(p.tensor).contiguous() for p in bucket.parameters]
        with torch.profiler.record_function("knet_hvd::statistics"):
            values = self._with_residuals(bucket, gradients)
            scales = local_scales(values, self.codec.config)
        originals = {
            number: values[number].to(torch.float32, copy=True)
            for number, parameter in enumerate(bucket.parameters)
            if parameter.name in self.snapshot_names
        }
        scales = yield hvd.allreduce_async_(
            scales,
            op=hvd.Max,
            name=f"knet_hvd.scales.{bucket.name}",
            process_set=self.exchange.process_set,
        )
        payloads = self._encode(bucket, [v.view(-1) for v in values], scales)
        outputs = [gradient.view(-1) for gradient in gradients]
        del values
        yield from self.exchange.run(bucket, payloads, scales, outputs)
        for number, gradient in enumerate(gradients):
            parameter = bucket.parameters[number]
            _store_gradient(parameter.tensor, gradient)
            own_scales = scales.narrow(0, *bucket.scales[number])
            self.scales[parameter.name] = own_scales
            if number in originals:
                self.snapshots[parameter.name] = take_snapshot(
                    originals[number],
                    gradient,
                    own_scales,
                    (parameter.stream, self.step),
                    self.codec,
                )

    def _with_residuals(self, bucket: TernaryBucket, gradients: list[Tensor]) -> list[Tensor]:
        if self.error_feedback is None:
            return gradients
        return [
            self.error_feedback.add_to(parameter.name, gradient)
            for parameter, gradient in zip(bucket.parameters, gradients, strict=True)
        ]

    def _encode(
        self, bucket: TernaryBucket, values: list[Tensor], scales: Tensor
    ) -> Iterator[Tensor]:
        """Yield the payload of each chunk of values [n]; then keep the residuals."""
        feedback = self.error_feedback
        sent = [torch.empty_like(value) for value in values] if feedback else []
        for chunk in bucket.chunks:
            with torch.profiler.record_function("knet_hvd::encode"):
                payload = self._encode_chunk(bucket, chunk, values, scales, sent)
            yield payload
        if feedback is not None:
            for parameter, value, own in zip(bucket.parameters, values, sent, strict=True):
                shape = parameter.tensor.shape
                feedback.update(parameter.name, value.view(shape), own.view(shape))

    def _encode_chunk(
        self,
        bucket: TernaryBucket,
        chunk: Chunk,
        values: list[Tensor],
        scales: Tensor,
        sent: list[Tensor],
    ) -> Tensor:
        """Return a chunk's payload; decode it into ``sent`` unless that is empty."""
        size, device = chunk.payload_bytes, values[0].device
        name = f"codes {chunk.name}"
        payload = self.exchange.buffers.get(name, size, torch.uint8, device)
        own_scales = scales.narrow(0, *chunk.scales)
        self.codec.encode(
            chunk.parts(values),
            own_scales,
            [bucket.parameters[part.parameter].stream for part in chunk.slices],
            self.step,
            payload,
            [part.values[0] for part in chunk.slices],
        )
        if sent:
            self.codec.decode(payload.unsqueeze(0), own_scales, chunk.parts(sent))
        return payload

    def _float_steps(self, bucket: FloatBucket) -> Steps:
        gradients = [_gradient(p.tensor).to(bucket.dtype) for p in bucket.parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        compressed, context = self.float_compression.compress(flat)
        # Summed, then divided: as the codes are, and without a factor of the backend.
        total = yield hvd.allreduce_async_(
            compressed,
            op=hvd.Sum,
            name=f"knet_hvd.float.{bucket.name}",
            process_set=self.exchange.process_set,
        )
        total = self.float_compression.decompress(total, context)
        total /= self.exchange.divisor
        parts = total.split([gradient.numel() for gradient in gradients])
        for parameter, part in zip(bucket.parameters, parts, strict=True):
            gradient = _gradient(parameter.tensor)
            gradient.copy_(part.view(gradient.shape))


def _gradient(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        raise KnetError("a gradient was removed while it was being exchanged")
    return gradient.data  # not `detach()`: what is written here is no change of the script's


def _store_gradient(parameter: Tensor, gradient: Tensor) -> None:
    target = _gradient(parameter)
    if target.data_ptr() != gradient.data_ptr():  # it was not contiguous
        target.copy_(gradient)

"""The reduction of one gradient bucket, from gradients to averaged gradients.

A ternary bucket passes four stages:

1. statistics of each gradient (plus its residual), and this rank's scales;
2. shared scales: the maximum over ranks;
3. ternary codes, packed into payloads;
4. exchange and decode of each payload, see ``exchanges``.

Each kind of bucket is a generator that yields a handle wherever it has to wait.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from knet_hvd.compression import local_scales
from knet_hvd.data_parallel.buckets.payload import PayloadPlan
from knet_hvd.data_parallel.buckets.plan import FloatBucket, NamedParameter, TernaryBucket
from knet_hvd.data_parallel.exchanges.base import CodedBucket, Reduction
from knet_hvd.data_parallel.reducer.snapshots import take_snapshot
from knet_hvd.data_parallel.reducer.state import ReductionState
from knet_hvd.errors import KnetError


def reduce_bucket(state: ReductionState, bucket: TernaryBucket | FloatBucket) -> Reduction:
    """Start a bucket whose parameters all have a gradient."""
    if isinstance(bucket, TernaryBucket):
        return _reduce_ternary(state, bucket)
    return _reduce_floats(state, bucket)


def _reduce_ternary(state: ReductionState, bucket: TernaryBucket) -> Reduction:
    gradients = [p.gradient.contiguous() for p in bucket.parameters]
    with torch.profiler.record_function("knet_hvd::statistics"):
        values = _with_residuals(state, bucket, gradients)
        scales = local_scales(values, state.codec.config)
    originals = {
        number: values[number].to(torch.float32, copy=True)
        for number, parameter in enumerate(bucket.parameters)
        if parameter.name in state.snapshot_names
    }
    scales = yield state.exchange.collectives.maximum(scales, f"scales.{bucket.name}")
    payloads = _encode(state, bucket, [v.view(-1) for v in values], scales)
    outputs = [gradient.view(-1) for gradient in gradients]
    del values
    yield from state.exchange.run(CodedBucket(bucket, payloads, scales, outputs))
    for number, gradient in enumerate(gradients):
        parameter = bucket.parameters[number]
        _store_gradient(parameter, gradient)
        own_scales = scales.narrow(0, *bucket.scales[number])
        state.scales[parameter.name] = own_scales
        if number in originals:
            state.snapshots[parameter.name] = take_snapshot(
                originals[number],
                gradient,
                own_scales,
                (parameter.stream, state.step),
                state.codec,
            )


def _with_residuals(
    state: ReductionState, bucket: TernaryBucket, gradients: list[Tensor]
) -> list[Tensor]:
    if state.error_feedback is None:
        return gradients
    return [
        state.error_feedback.add_to(parameter.name, gradient)
        for parameter, gradient in zip(bucket.parameters, gradients, strict=True)
    ]


def _encode(
    state: ReductionState, bucket: TernaryBucket, values: list[Tensor], scales: Tensor
) -> Iterator[Tensor]:
    """Yield each payload of values [n]; then keep the residuals."""
    feedback = state.error_feedback
    sent = [torch.empty_like(value) for value in values] if feedback else []
    for plan in bucket.payloads:
        with torch.profiler.record_function("knet_hvd::encode"):
            payload = _encode_payload(state, plan, values, scales)
            if sent:
                own_scales = scales.narrow(0, *plan.scales)
                state.codec.decode(payload.unsqueeze(0), own_scales, plan.parts(sent))
        yield payload
    if feedback is not None:
        for parameter, value, own in zip(bucket.parameters, values, sent, strict=True):
            shape = parameter.tensor.shape
            feedback.update(parameter.name, value.view(shape), own.view(shape))


def _encode_payload(
    state: ReductionState, plan: PayloadPlan, values: list[Tensor], scales: Tensor
) -> Tensor:
    buffers, device = state.exchange.buffers, values[0].device
    payload = buffers.get(f"codes {plan.name}", plan.num_bytes, torch.uint8, device)
    return state.codec.encode(
        plan.parts(values),
        scales.narrow(0, *plan.scales),
        plan.streams,
        state.step,
        payload,
        plan.first_values,
    )


def _reduce_floats(state: ReductionState, bucket: FloatBucket) -> Reduction:
    gradients = [p.gradient.to(bucket.dtype) for p in bucket.parameters]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    context = None
    compressor = state.float_compressor
    if compressor is not None:
        flat, context = compressor.compress(flat)
    # Sum, then divide, as for codes; the transport's own mean may round differently.
    total = yield from state.float_sum(state.exchange.collectives, flat, bucket.name)
    if compressor is not None:
        total = compressor.decompress(total, context)
    total /= state.exchange.divisor
    parts = total.split([gradient.numel() for gradient in gradients])
    for parameter, part in zip(bucket.parameters, parts, strict=True):
        gradient = parameter.gradient
        gradient.copy_(part.view(gradient.shape))


def _store_gradient(parameter: NamedParameter, gradient: Tensor) -> None:
    target = parameter.gradient
    if target.data_ptr() != gradient.data_ptr():  # it was not contiguous
        target.copy_(gradient)


def complete_gradients(parameters: Sequence[NamedParameter]) -> None:
    """Give parameters without a gradient one of zeros.

    Raises:
        KnetError: If a gradient is neither dense nor sparse in coordinates.
    """
    for parameter in parameters:
        tensor = parameter.tensor
        if tensor.grad is None:
            tensor.grad = torch.zeros_like(tensor)
        elif tensor.grad.layout is not torch.strided:
            raise KnetError(
                f"parameter {parameter.name}: expected a dense gradient or one in coordinates, "
                f"got {tensor.grad.layout}"
            )

"""The gradient reducer: runs every bucket's reduction, overlapping with backward.

Nothing waits until ``finish``: a reduction continues where its operation has ended.
Operations have names, so ranks need not start them in the same order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from knet_hvd.collectives import Handle
from knet_hvd.data_parallel.buckets.plan import FloatBucket, TernaryBucket
from knet_hvd.data_parallel.exchanges.base import Reduction
from knet_hvd.data_parallel.reducer.base import Reducer
from knet_hvd.data_parallel.reducer.bucket_reduction import reduce_bucket
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot
from knet_hvd.data_parallel.reducer.state import ReductionState
from knet_hvd.errors import KnetError
from knet_hvd.performance import allreduce_bytes


@dataclass(slots=True)
class _InFlight:
    """A bucket's reduction, and the operation whose result it needs next."""

    reduction: Reduction
    handle: Handle | None

    @property
    def is_done(self) -> bool:
        """Whether the reduction has ended."""
        return self.handle is None

    def wait(self) -> None:
        """Wait for the operation in flight, and continue the reduction."""
        if self.handle is not None:
            with torch.profiler.record_function("knet_hvd::exchange"):
                result = self.handle.wait()
            try:
                self.handle = self.reduction.send(result)
            except StopIteration:
                self.handle = None

    def advance(self) -> None:
        """Continue as long as operations have ended."""
        while self.handle is not None and self.handle.poll():
            self.wait()


class GradientReducer(Reducer):
    """Average the gradients of all ranks, bucket by bucket."""

    def __init__(
        self,
        state: ReductionState,
        ternary_buckets: Sequence[TernaryBucket],
        float_buckets: Sequence[FloatBucket],
    ) -> None:
        """Keep what ``plan_buckets`` returned; nothing is exchanged yet."""
        self.state = state
        self._buckets: list[TernaryBucket | FloatBucket] = [*ternary_buckets, *float_buckets]
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
    def ternary_names(self) -> list[str]:
        """Names of the parameters whose gradients cross as codes."""
        buckets = [b for b in self._buckets if isinstance(b, TernaryBucket)]
        parameters = [p for bucket in buckets for p in bucket.parameters]
        return [p.name for p in sorted(parameters, key=lambda p: p.stream)]

    @property
    def is_busy(self) -> bool:
        """Whether operations of this step were started and not yet finished."""
        return bool(self._in_flight or self._done)

    @property
    def parameters(self) -> Collection[Tensor]:
        """See ``Reducer.parameters``."""
        return self._bucket_of.keys()

    def manages(self, parameter: Tensor) -> bool:
        """See ``Reducer.manages``."""
        return parameter in self._bucket_of

    def state_dict(self) -> dict[str, Any]:
        """See ``Reducer.state_dict``."""
        feedback = self.state.error_feedback
        residuals = feedback.state_dict() if feedback is not None else {}
        return {"step": self.state.step, "residuals": residuals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``Reducer.load_state_dict``."""
        self.state.step = int(state["step"])
        if self.state.error_feedback is not None:
            self.state.error_feedback.load_state_dict(state["residuals"])

    def request_snapshots(self, names: Iterable[str]) -> None:
        """See ``Reducer.request_snapshots``."""
        self.state.snapshot_names = frozenset(names)

    @property
    def snapshots(self) -> dict[str, GradientSnapshot]:
        """See ``Reducer.snapshots``."""
        return self.state.snapshots

    @property
    def scales(self) -> dict[str, Tensor]:
        """See ``Reducer.scales``."""
        return self.state.scales

    def mark_ready(self, parameter: Tensor) -> None:
        """Note that a gradient is complete; start its bucket if it was the last."""
        number = self._bucket_of[parameter]
        self._missing[number].discard(parameter)
        if not self._missing[number] and number not in self._in_flight:
            self._start(number)
        self._advance_all()

    def _advance_all(self) -> None:
        for number, bucket in list(self._in_flight.items()):
            bucket.advance()
            if bucket.is_done:
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
        reduction = reduce_bucket(self.state, bucket)
        self._in_flight[number] = _InFlight(reduction, next(reduction))

    def poll(self) -> bool:
        """See ``Reducer.poll``; for callers that have made all gradients."""
        for number in range(len(self._buckets)):
            if number not in self._in_flight and number not in self._done:
                self._start(number)
        self._advance_all()
        return not self._in_flight

    def finish(self) -> None:
        """Wait until every parameter has its averaged gradient; ends the step.

        Parameters that got no gradient on this rank take part with zeros.
        """
        # Scales are asked for one bucket ahead: after the codes of a bucket they would
        # wait until those have crossed, and far ahead of them the network is idle.
        ahead: _InFlight | None = None
        for number in range(len(self._buckets)):
            if number not in self._in_flight and number not in self._done:
                self._start(number)
                if ahead is not None:
                    ahead.wait()
                ahead = self._in_flight[number]
        self._advance_all()
        while self._in_flight:
            self._in_flight[min(self._in_flight)].wait()
            self._advance_all()
        self.reset()
        self.state.step += 1

    def reset(self) -> None:
        """Forget which gradients have arrived in this step."""
        self._in_flight.clear()
        self._done.clear()
        self._missing = [set(self._tensors(b)) for b in range(len(self._buckets))]

    def wire_bytes(self) -> float:
        """Return the bytes that this rank sends in a step, by formula."""
        num_ranks = self.state.exchange.collectives.size
        total = 0.0
        for bucket in self._buckets:
            if isinstance(bucket, TernaryBucket):
                total += sum(map(self.state.exchange.wire_bytes, bucket.payloads))
                total += allreduce_bytes(4 * bucket.num_scales, num_ranks)
            else:
                size = torch.empty((), dtype=bucket.dtype).element_size()
                total += allreduce_bytes(size * bucket.numel, num_ranks)
        return total

    def uncompressed_wire_bytes(self) -> float:
        """Return the bytes that Horovod would send in the gradients' own dtypes."""
        return sum(
            allreduce_bytes(t.numel() * t.element_size(), self.state.exchange.collectives.size)
            for t in self._bucket_of
        )

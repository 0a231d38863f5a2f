"""The gradient reducer: runs every bucket's steps, overlapping with backward.

Nothing waits until ``finish``: operations are started where they can be, and gone on
with where they have ended. Horovod pairs operations by name, so ranks need not start
them in the same order.
"""

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.data_parallel.buckets.plan import FloatBucket, TernaryBucket
from knet_hvd.data_parallel.reducer.base import Reducer
from knet_hvd.data_parallel.reducer.bucket_reduction import BucketSteps
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot
from knet_hvd.errors import KnetError
from knet_hvd.performance import allreduce_bytes


@dataclass(slots=True)
class _InFlight:
    """A bucket's steps, and the Horovod operation that the next one waits for."""

    steps: Generator[int, Any, None]
    handle: int | None

    @property
    def is_done(self) -> bool:
        """Whether the last step has been made."""
        return self.handle is None

    def wait(self) -> None:
        """Wait for the operation in flight, and make the step that follows it."""
        if self.handle is not None:
            with torch.profiler.record_function("knet_hvd::exchange"):
                result = hvd.synchronize(self.handle)
            try:
                self.handle = self.steps.send(result)
            except StopIteration:
                self.handle = None

    def advance(self) -> None:
        """Make the steps whose operations have ended."""
        while self.handle is not None and hvd.poll(self.handle):
            self.wait()


class GradientReducer(Reducer):
    """Average the gradients of all ranks, bucket by bucket."""

    def __init__(
        self,
        steps: BucketSteps,
        ternary_buckets: Sequence[TernaryBucket],
        float_buckets: Sequence[FloatBucket],
    ) -> None:
        """Keep the plan; nothing is exchanged yet.

        Args:
            steps: What to do with a bucket.
            ternary_buckets: See ``plan_buckets``.
            float_buckets: See ``plan_buckets``.
        """
        self.steps = steps
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
        feedback = self.steps.error_feedback
        residuals = feedback.state_dict() if feedback is not None else {}
        return {"step": self.steps.step, "residuals": residuals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``Reducer.load_state_dict``."""
        self.steps.step = int(state["step"])
        if self.steps.error_feedback is not None:
            self.steps.error_feedback.load_state_dict(state["residuals"])

    def request_snapshots(self, names: Iterable[str]) -> None:
        """See ``Reducer.request_snapshots``."""
        self.steps.snapshot_names = frozenset(names)

    @property
    def snapshots(self) -> dict[str, GradientSnapshot]:
        """See ``Reducer.snapshots``."""
        return self.steps.snapshots

    @property
    def scales(self) -> dict[str, Tensor]:
        """See ``Reducer.scales``."""
        return self.steps.scales

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
        steps = self.steps.run(bucket)
        self._in_flight[number] = _InFlight(steps, next(steps))

    def poll(self) -> bool:
        """Go on without waiting; return whether `finish` would not wait.

        For callers that have made all gradients, and do not want to wait for ever.
        """
        for number in range(len(self._buckets)):
            if number not in self._in_flight and number not in self._done:
                self._start(number)
        self._advance_all()
        return not self._in_flight

    def finish(self) -> None:
        """Wait until every parameter has its averaged gradient; ends the step.

        Parameters that got no gradient on this rank take part with zeros.
        """
        # Scales are asked for one bucket ahead: behind the codes of a bucket they would
        # wait until those have crossed, and far ahead of them the network stands idle.
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
        self.steps.step += 1

    def reset(self) -> None:
        """Forget which gradients have arrived in this step."""
        self._in_flight.clear()
        self._done.clear()
        self._missing = [set(self._tensors(b)) for b in range(len(self._buckets))]

    def wire_bytes(self) -> float:
        """Return the bytes that this rank sends in a step, by formula."""
        num_ranks = self.steps.exchange.num_ranks
        total = 0.0
        for bucket in self._buckets:
            if isinstance(bucket, TernaryBucket):
                total += sum(map(self.steps.exchange.wire_bytes, bucket.chunks))
                total += allreduce_bytes(4 * bucket.num_scales, num_ranks)
            else:
                size = torch.empty((), dtype=bucket.dtype).element_size()
                total += allreduce_bytes(size * bucket.numel, num_ranks)
        return total

    def uncompressed_wire_bytes(self) -> float:
        """Return the bytes that Horovod would send in the gradients' own dtypes."""
        return sum(
            allreduce_bytes(t.numel() * t.element_size(), self.steps.exchange.num_ranks)
            for t in self._bucket_of
        )

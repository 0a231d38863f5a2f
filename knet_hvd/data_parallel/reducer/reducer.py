"""The gradient reducer: runs every bucket's reduction, overlapping with backward.

Nothing waits until ``finish``: a reduction continues where its operation has ended.
Operations have names, so ranks need not start them in the same order.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from knet_hvd.data_parallel.buckets.plan import FloatBucket, TernaryBucket
from knet_hvd.data_parallel.reducer.base import Reducer
from knet_hvd.data_parallel.reducer.bucket_reduction import complete_gradients, reduce_bucket
from knet_hvd.data_parallel.reducer.codec_stream import CodecStreams
from knet_hvd.data_parallel.reducer.in_flight import InFlight
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot
from knet_hvd.data_parallel.reducer.sparse import SparseAgreement, SparseBucket, reduce_sparse
from knet_hvd.data_parallel.reducer.state import ReductionState
from knet_hvd.data_parallel.reducer.step_bytes import bucket_bytes, uncompressed_bytes


class GradientReducer(Reducer):
    """Average the gradients of all ranks, bucket by bucket."""

    def __init__(
        self,
        state: ReductionState,
        ternary_buckets: Sequence[TernaryBucket],
        float_buckets: Sequence[FloatBucket],
        *,
        sparse_as_dense: bool = False,
    ) -> None:
        """Keep what ``plan_buckets`` returned; nothing is exchanged yet.

        Args:
            ternary_buckets: Parameters whose gradients cross as codes, unless they are sparse.
            sparse_as_dense: Exchange sparse gradients in these buckets too.
        """
        self.state = state
        self._in_flight: dict[int, InFlight] = {}
        self._done: set[int] = set()
        self._dense: list[TernaryBucket | FloatBucket] = [*ternary_buckets, *float_buckets]
        self._take(self._dense)
        self._named = {p.tensor: p for bucket in self._buckets for p in bucket.parameters}
        self._agreement = SparseAgreement(
            state.exchange.collectives,
            list(self._named.values()),
            self._dense[0].optimizer if self._dense else 0,
            as_dense=sparse_as_dense,
        )
        self._streams = CodecStreams(self._bucket_of)

    def _take(self, buckets: Sequence[TernaryBucket | FloatBucket | SparseBucket]) -> None:
        self._buckets = buckets
        self._bucket_of = {
            parameter.tensor: number
            for number, bucket in enumerate(self._buckets)
            for parameter in bucket.parameters
        }
        self._missing = [{p.tensor for p in bucket.parameters} for bucket in self._buckets]

    def _agree(self, *, wait: bool) -> bool:
        """Agree on sparse gradients, which leave their buckets; return whether it is done."""
        if self._agreement.is_reached:
            return True
        if not self._agreement.advance(wait=wait):
            return False
        own = self._agreement.buckets()
        if own:
            sparse, codec = self._agreement.sparse, self.state.codec
            others = [bucket.without(sparse, codec) for bucket in self._dense]
            self._take([*(bucket for bucket in others if bucket.parameters), *own])
        return True

    @property
    def ternary_names(self) -> list[str]:
        """Names of the parameters whose gradients cross as codes."""
        ternary = [bucket for bucket in self._buckets if isinstance(bucket, TernaryBucket)]
        parameters = [p for bucket in ternary for p in bucket.parameters]
        return [p.name for p in sorted(parameters, key=lambda p: p.stream)]

    @property
    def is_busy(self) -> bool:
        """Whether operations of this step were started and not yet finished."""
        return bool(self._in_flight or self._done or self._agreement.is_in_flight)

    @property
    def parameters(self) -> Collection[Tensor]:
        """See ``Reducer.parameters``."""
        return self._bucket_of.keys()

    def manages(self, parameter: Tensor) -> bool:
        """See ``Reducer.manages``."""
        return parameter in self._bucket_of

    @property
    def sparse(self) -> Collection[Tensor]:
        """See ``Reducer.sparse``."""
        return self._agreement.sparse

    def may_stay_sparse(self, parameter: Tensor) -> bool:
        """See ``Reducer.may_stay_sparse``."""
        return self._agreement.may_stay_sparse(self._named[parameter])

    def state_dict(self) -> dict[str, Any]:
        """See ``Reducer.state_dict``."""
        self._streams.hand_over(self.state.residuals.values())
        return self.state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See ``Reducer.load_state_dict``."""
        self.state.load_state_dict(state)

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
        """Note that a gradient is complete; start its bucket if it was the last.

        Before ranks have agreed on sparse gradients, in the first step, nothing starts.
        """
        self._streams.of(parameter).note_gradient()
        if not self._agreement.is_reached:
            return
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
        if isinstance(bucket, SparseBucket):
            reduction = reduce_sparse(self.state.exchange, bucket)
        else:
            complete_gradients(bucket.parameters)
            reduction = reduce_bucket(self.state, bucket)
        stream = self._streams.of(bucket.parameters[0].tensor)
        stream.take_over(self.state.callers_tensors(bucket.parameters))
        self._in_flight[number] = InFlight.start(reduction, stream)

    def poll(self) -> bool:
        """See ``Reducer.poll``; for callers that have made all gradients."""
        if not self._agree(wait=False):
            return False
        for number in range(len(self._buckets)):
            if number not in self._in_flight and number not in self._done:
                self._start(number)
        self._advance_all()
        return not self._in_flight

    def finish(self) -> None:
        """Wait until every parameter has its averaged gradient; ends the step.

        Parameters that got no gradient on this rank take part with zeros.
        """
        self._agree(wait=True)
        sparse = [bucket for bucket in self._buckets if isinstance(bucket, SparseBucket)]
        try:
            self._finish_buckets()
        finally:
            averaged = [bucket.averaged for bucket in sparse if bucket.averaged is not None]
            self._streams.hand_over([*self.state.published_tensors(), *averaged])
        for bucket in sparse:
            bucket.parameter.tensor.grad, bucket.averaged = bucket.averaged, None
        self._forget_arrivals()
        self.state.step += 1

    def _finish_buckets(self) -> None:
        # Scales are asked for one bucket ahead: after the codes of a bucket they would
        # wait until those have crossed, and far ahead of them the network is idle.
        ahead: InFlight | None = None
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

    def reset(self) -> None:
        """Forget which gradients have arrived in this step."""
        self._streams.hand_over(())
        self._forget_arrivals()

    def _forget_arrivals(self) -> None:
        self._in_flight.clear()
        self._done.clear()
        self._missing = [{p.tensor for p in bucket.parameters} for bucket in self._buckets]

    def wire_bytes(self) -> float:
        """Return the bytes that this rank sends in a step: see ``step_bytes``."""
        return sum(bucket_bytes(bucket, self.state.exchange) for bucket in self._buckets)

    def uncompressed_wire_bytes(self) -> float:
        """Return the bytes that Horovod would send in the gradients' own dtypes."""
        num_ranks = self.state.exchange.collectives.size
        return sum(uncompressed_bytes(bucket, num_ranks) for bucket in self._buckets)

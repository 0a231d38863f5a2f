"""The ranks that average gradients, once they have met."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from knet_hvd.agreement import check_agreement
from knet_hvd.collectives import Collectives
from knet_hvd.compression import ErrorFeedback, TernaryCodec, TernaryConfig
from knet_hvd.compression.levels import MAX_RANKS
from knet_hvd.data_parallel.buckets.plan import (
    MAX_BUCKET_VALUES,
    FloatBucket,
    TernaryBucket,
    plan_buckets,
)
from knet_hvd.data_parallel.exchanges.registry import ExchangeChoice, make_exchange
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.data_parallel.reducer.bucket_reduction import reduce_bucket
from knet_hvd.data_parallel.reducer.float_sums import sum_in_rank_order
from knet_hvd.data_parallel.reducer.state import ReductionState
from knet_hvd.data_parallel.reducer.step_bytes import bucket_bytes
from knet_hvd.ddp.parameters import GradientBucket, ParameterNames
from knet_hvd.ddp.worker import Job, ReductionThread
from knet_hvd.errors import KnetError


class Reductions:
    """Average buckets over the ranks of a process group, which have agreed on settings."""

    def __init__(
        self,
        collectives: Collectives,
        names: ParameterNames,
        config: TernaryConfig,
        exchange: ExchangeChoice,
        payload_values: int,
        timeout_s: float | None,
    ) -> None:
        """Check that ranks agree; all of them call this.

        Raises:
            RankMismatchError: On every rank, if ranks disagree on settings.
            KnetError: If a rank does not come in time.
        """
        facts: dict[str, object] = {"exchange": exchange, "payload_values": payload_values}
        facts |= asdict(config) | names.facts()
        ranks = CollectiveRanks(collectives, timeout_s)
        check_agreement(ranks, facts, "settings of TernaryState", same_names=True)
        if collectives.size > MAX_RANKS:
            raise ValueError(f"at most {MAX_RANKS} ranks, got {collectives.size}")
        codec = TernaryCodec(config, collectives.job_rank)
        self._names = names
        self._payload_values = payload_values
        self._collectives = collectives
        self._state = ReductionState(
            codec,
            make_exchange(exchange, codec, collectives, collectives.size),
            # Buckets of the first step after a restart are others: sums must be the same.
            float_sum=sum_in_rank_order,
            error_feedback=ErrorFeedback() if config.error_feedback else None,
        )
        self._thread = ReductionThread()
        self._first_names: list[str] = []
        self._sent_bytes = 0.0
        self.wire_bytes = 0.0
        """Bytes that this rank sent in the latest step, by formula."""

    def reduce(self, bucket: GradientBucket) -> torch.futures.Future[Tensor]:
        """Start to average a bucket; buckets come in the same order on all ranks."""
        buffer = bucket.buffer()
        parameters = self._names.of(bucket)
        if not buffer.is_cpu:
            raise KnetError(
                f"gradients on {buffer.device}: ternary_hook exchanges gradients on the CPU only"
            )
        self._collectives.check_device(buffer.device)
        if bucket.index() == 0:
            self._begin_step([parameter.name for parameter in parameters])
        state = self._state
        ternary, floats = plan_buckets(
            parameters, state.codec, MAX_BUCKET_VALUES, payload_values=self._payload_values
        )
        buckets: list[TernaryBucket | FloatBucket] = [*ternary, *floats]
        self._sent_bytes += sum(bucket_bytes(each, state.exchange) for each in buckets)
        is_last = bucket.is_last()

        def finish() -> Tensor:
            if is_last:
                state.step += 1
                self.wire_bytes = self._sent_bytes
            return buffer

        return self._thread.submit(Job([reduce_bucket(state, each) for each in buckets], finish))

    def _begin_step(self, names: list[str]) -> None:
        """Forget the memory of buckets that no longer are: the first step has other ones."""
        self._sent_bytes = 0.0
        if names != self._first_names:
            self._state.exchange.buffers.clear()
            self._first_names = names

    def state_dict(self) -> dict[str, Any]:
        """Return the step and this rank's residuals by parameter name."""
        return self._state.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned on this rank."""
        self._state.load_state_dict(state)

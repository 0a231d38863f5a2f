"""What ``ternary_hook`` is registered with: settings, and what lasts between steps."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from knet_hvd.argument_checks import check_flag, check_integer, check_positive
from knet_hvd.collectives.torch_distributed import TorchCollectives
from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.arguments import ternary_config
from knet_hvd.data_parallel.buckets.plan import PAYLOAD_VALUES
from knet_hvd.data_parallel.exchanges.registry import ExchangeChoice, check_exchange
from knet_hvd.data_parallel.ranks.agreement import start_timeout_s
from knet_hvd.ddp.parameters import GradientBucket, ParameterNames
from knet_hvd.ddp.reductions import Reductions


class TernaryState:
    """Settings of ternary gradients under DistributedDataParallel; one object for one model.

    Scales are shared by a maximum over ranks before gradients are encoded (arXiv 1705.07878,
    eq. 4), so codes add up exactly and all ranks get the same gradient, bit for bit. A
    gradient with NaN or infinite values is NaN on all ranks. On a single rank gradients stay
    as they are.
    """

    def __init__(
        self,
        ternary: TernaryConfig | None = None,
        *,
        error_feedback: bool | None = None,
        named_parameters: Iterable[tuple[str, Tensor]] | None = None,
        exchange: ExchangeChoice = "auto",
        process_group: dist.ProcessGroup | None = None,
        payload_values: int = PAYLOAD_VALUES,
        timeout_s: float | None = None,
        step_timeout_s: float | None = None,
    ) -> None:
        """Meet the other ranks, if torch.distributed is initialized; else in the first step.

        Args:
            ternary: Settings of the codec; see ``TernaryConfig``.
            error_feedback: Takes the place of the setting in ``ternary``.
            named_parameters: Usually ``model.named_parameters()``; the names appear in
                ``float_parameters`` patterns, messages and ``state_dict``. With None they are
                ``parameter.0`` and so on.
            exchange: ``"allgather"``, ``"alltoall"`` or ``"auto"``, the one that sends fewer
                bytes with this number of ranks.
            process_group: The group that the model was wrapped with; None for all ranks.
            payload_values: Codes cross in payloads of about that many values.
            timeout_s: Seconds to wait for other ranks at the start; ``KNET_START_TIMEOUT_S``,
                or 30, if not given.
            step_timeout_s: Seconds that an exchange waits for a rank; torch's own time, 30
                minutes with gloo, if not given.

        Raises:
            TypeError: If an argument is of another type.
            ValueError: If an argument is out of range.
            RankMismatchError: On every rank, if ranks disagree on settings.
            KnetError: If a rank does not come in time.
        """
        self._config = ternary_config(ternary)
        if error_feedback is not None:
            check_flag("error_feedback", error_feedback)
            self._config = replace(self._config, error_feedback=error_feedback)
        check_exchange(exchange)
        check_integer("payload_values", payload_values, least=1)
        if step_timeout_s is not None:
            check_positive("step_timeout_s", step_timeout_s)
        self._exchange = exchange
        self._payload_values = payload_values
        self._process_group = process_group
        self._timeouts_s = (start_timeout_s(timeout_s), step_timeout_s)
        self._names = ParameterNames(named_parameters)
        self._reductions: Reductions | None = None
        self._loaded: Mapping[str, Any] | None = None
        if dist.is_available() and dist.is_initialized():
            self._meet()

    def _meet(self) -> Reductions:
        """Meet the other ranks."""
        start_s, step_s = self._timeouts_s
        self._reductions = Reductions(
            TorchCollectives(self._process_group, start_timeout_s=start_s, timeout_s=step_s),
            self._names,
            self._config,
            self._exchange,
            self._payload_values,
            start_s,
        )
        if self._loaded is not None:
            self._reductions.load_state_dict(self._loaded)
        return self._reductions

    def reduce(self, bucket: GradientBucket) -> torch.futures.Future[Tensor]:
        """Start to average a bucket of gradients: what ``ternary_hook`` does."""
        if dist.get_world_size(self._process_group) == 1:
            done: torch.futures.Future[Tensor] = torch.futures.Future()
            done.set_result(bucket.buffer())
            return done
        return (self._reductions or self._meet()).reduce(bucket)

    @property
    def config(self) -> TernaryConfig:
        """Settings of the codec."""
        return self._config

    @property
    def wire_bytes(self) -> float:
        """Bytes that this rank sent in the latest step, by formula."""
        return self._reductions.wire_bytes if self._reductions is not None else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the step and this rank's residuals, tensors by parameter name.

        Residuals differ from rank to rank: every rank saves its own.
        """
        if self._reductions is not None:
            return self._reductions.state_dict()
        return dict(self._loaded) if self._loaded is not None else {"step": 0, "residuals": {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned on this rank; training continues bit for bit."""
        if self._reductions is not None:
            self._reductions.load_state_dict(state)
        self._loaded = state

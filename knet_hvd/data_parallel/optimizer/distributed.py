"""Path A: wrap an optimizer so that it exchanges ternary gradients."""

from collections.abc import Iterable, Sequence
from typing import Any

import horovod.torch as hvd
import torch
from horovod.torch.optimizer import DistributedOptimizer as HorovodDistributedOptimizer
from torch import Tensor

from knet_hvd.argument_checks import check_flag, check_integer
from knet_hvd.collectives import check_devices
from knet_hvd.collectives.horovod import HorovodCollectives
from knet_hvd.compression import ErrorFeedback, TernaryCodec, TernaryConfig
from knet_hvd.data_parallel.arguments import ternary_config
from knet_hvd.data_parallel.buckets.plan import (
    MAX_BUCKET_VALUES,
    PAYLOAD_VALUES,
    NamedParameter,
    plan_buckets,
)
from knet_hvd.data_parallel.calibration.auto import advised_choice, choose_method
from knet_hvd.data_parallel.exchanges.registry import ExchangeChoice, check_exchange, make_exchange
from knet_hvd.data_parallel.horovod_arguments import check_op, check_process_set
from knet_hvd.data_parallel.optimizer.arguments import (
    check_bucket_sizes,
    check_compression,
    check_optimizer,
    check_ranks_agree,
    check_reduction,
)
from knet_hvd.data_parallel.optimizer.horovod import wrap_horovod
from knet_hvd.data_parallel.optimizer.parameters import group_names, named_parameters_of
from knet_hvd.data_parallel.optimizer.ternary import TernaryOptimizer
from knet_hvd.data_parallel.ranks.agreement import CollectiveRanks
from knet_hvd.data_parallel.ranks.fixed_ranks import FixedRanks
from knet_hvd.data_parallel.ranks.optimizer_numbers import take_number
from knet_hvd.data_parallel.reducer.base import Reducer
from knet_hvd.data_parallel.reducer.reducer import GradientReducer
from knet_hvd.data_parallel.reducer.state import ReductionState
from knet_hvd.performance import Advice


def DistributedOptimizer(
    optimizer: torch.optim.Optimizer,
    named_parameters: Iterable[tuple[str, Tensor]] | None = None,
    compression: Any = "ternary",
    backward_passes_per_step: int = 1,
    op: Any = hvd.Average,
    gradient_predivide_factor: float = 1.0,
    num_groups: int = 0,
    groups: int | Sequence[Sequence[Tensor]] | None = None,
    sparse_as_dense: bool = False,
    process_set: hvd.ProcessSet = hvd.global_process_set,
    *,
    ternary: TernaryConfig | None = None,
    exchange: ExchangeChoice = "auto",
    max_bucket_values: int | None = None,
    payload_values: int = PAYLOAD_VALUES,
    timeout_s: float | None = None,
) -> Any:
    """Wrap an optimizer so that it averages ternary gradients over all ranks.

    Takes the place of ``hvd.DistributedOptimizer``: the same first arguments, the same
    methods. Scales are shared by a maximum over ranks before encoding (arXiv
    1705.07878, eq. 4), so codes add up exactly and all ranks get the same gradient, bit
    for bit. A gradient with NaN or infinite values is NaN on all ranks.

    Args:
        optimizer: What updates the parameters.
        named_parameters: Usually ``model.named_parameters()``; the names appear in
            ``float_parameters`` patterns and messages.
        compression: ``"ternary"``; ``"none"`` or ``"fp16"`` for Horovod's optimizer;
            ``"auto"`` times them for some seconds on these ranks and takes what is
            fastest, fp32 unless another is 1.1 times faster. A Horovod compressor
            (``hvd.Compression.fp16``) keeps ternary codes and applies to the tensors
            that stay in floating point.
        backward_passes_per_step: Backward passes to accumulate before an exchange.
        op: ``hvd.Average`` or ``hvd.Sum``.
        gradient_predivide_factor: Accepted for compatibility: sums of codes are exact
            integers, so that dividing before or after makes no difference.
        num_groups: Horovod's older name for an integer ``groups``.
        groups: Number of groups, or lists of parameters, that cross together.
        sparse_as_dense: Exchange sparse gradients as dense ones, as codes; without it their
            rows cross as they are, as with Horovod.
        process_set: The ranks that train together.
        ternary: Settings of the codec; see ``TernaryConfig``.
        exchange: ``"allgather"``, ``"alltoall"`` or ``"auto"``, the one that sends
            fewer bytes with this number of ranks.
        max_bucket_values: Gradients cross in buckets of about that many values, as
            backward produces them; 4 Mi if not given, or what ``"auto"`` measured.
        payload_values: Codes cross in payloads of about that many values, so that larger
            gradients are encoded, sent and decoded at the same time.
        timeout_s: Seconds to wait for other ranks here, where a rank may be late that
            reads data from a slow disk; ``KNET_START_TIMEOUT_S``, or 30, if not given.

    Returns:
        An optimizer of a subclass of ``type(optimizer)`` and ``TernaryOptimizer`` that
        shares the state and parameter groups of ``optimizer``. After ``"auto"`` its
        ``compression_advice`` tells what was predicted.

    Raises:
        TypeError: If an argument is of another type.
        ValueError: If an argument is out of range or not supported.
        RankMismatchError: On every rank, if ranks disagree on parameters or settings.
        KnetError: If not all ranks get here in time, or a gradient's device cannot send.
    """
    check_optimizer(optimizer)
    check_compression(compression)
    check_integer("backward_passes_per_step", backward_passes_per_step, least=1)
    check_op(op, "knet_hvd.DistributedOptimizer")
    check_flag("sparse_as_dense", sparse_as_dense)
    check_process_set(process_set)
    check_reduction(op, gradient_predivide_factor, process_set)
    check_exchange(exchange)
    check_bucket_sizes(max_bucket_values, payload_values)
    config = ternary_config(ternary)
    parameters = named_parameters_of(optimizer, named_parameters)
    grouping = group_names(parameters, num_groups, groups)
    number = 0
    if process_set.included():
        name = getattr(compression, "__name__", type(compression).__name__)
        settings = (
            compression if isinstance(compression, str) else name,
            op,
            backward_passes_per_step,
            exchange,
            max_bucket_values,
            payload_values,
            [sorted(group) for group in grouping],
        )
        collectives = HorovodCollectives(process_set)
        check_devices(collectives, [parameter.tensor for parameter in parameters])
        check_ranks_agree(parameters, config, settings, CollectiveRanks(collectives, timeout_s))
        number = take_number(collectives, timeout_s)
    advice = None
    if compression == "auto":
        if process_set.included():
            advice = choose_method(parameters, config, exchange, collectives)
        compression, exchange = advised_choice(advice, exchange)
    if compression in ("none", "fp16"):
        return wrap_horovod(
            optimizer,
            [(f"{number}.{p.name}" if number else p.name, p.tensor) for p in parameters],
            getattr(hvd.Compression, compression),
            advice,
            backward_passes_per_step=backward_passes_per_step,
            op=op,
            gradient_predivide_factor=gradient_predivide_factor,
            num_groups=num_groups,
            groups=groups,
            sparse_as_dense=sparse_as_dense,
            process_set=process_set,
        )
    reducer = Reducer()
    if process_set.included() and process_set.size() > 1:
        codec = TernaryCodec(config, collectives.job_rank)
        divisor = collectives.size if op == hvd.Average else 1
        state = ReductionState(
            codec,
            make_exchange(exchange, codec, collectives, divisor),
            None if isinstance(compression, str) else compression,
            ErrorFeedback() if config.error_feedback else None,
        )
        values = max_bucket_values or _bucket_values(advice)
        ternary_buckets, float_buckets = plan_buckets(
            parameters, codec, values, grouping, payload_values, number
        )
        reducer = GradientReducer(
            state, ternary_buckets, float_buckets, sparse_as_dense=sparse_as_dense
        )
    wrapped = _wrap(optimizer, parameters, reducer, backward_passes_per_step)
    wrapped.compression_advice = advice
    return wrapped


def _bucket_values(advice: Advice | None) -> int:
    """Return the size of buckets that the user did not give."""
    measured = advice.bucket_values if advice is not None else None
    return min(measured or MAX_BUCKET_VALUES, MAX_BUCKET_VALUES)


def _wrap(
    optimizer: torch.optim.Optimizer,
    parameters: list[NamedParameter],
    reducer: Reducer,
    backward_passes_per_step: int,
) -> TernaryOptimizer:
    """Return the optimizer again, as a TernaryOptimizer of its own class."""
    base = type(optimizer)
    namespace = {
        "step": TernaryOptimizer.synchronize_and_step,
        # Tells hvd.broadcast_optimizer_state to call the step of the parent class.
        "__module__": HorovodDistributedOptimizer.__module__,
    }
    cls: Any = type(base.__name__, (TernaryOptimizer, base), namespace)
    wrapped: TernaryOptimizer = cls.__new__(cls)
    state = dict(optimizer.__dict__)
    state.pop("step", None)  # a scheduler's patch, bound to the optimizer wrapped here
    wrapped.__dict__.update(state)
    wrapped._ranks = FixedRanks.now()
    wrapped._reducer = reducer
    wrapped._managed = {p.tensor: p.name for p in parameters}
    wrapped.backward_passes_per_step = backward_passes_per_step
    wrapped._attach()
    return wrapped

"""``compression="auto"``: calibrate on the running ranks, and take what is fastest."""

import logging
from collections.abc import Sequence

import horovod.torch as hvd
import torch

from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.data_parallel.calibration.calibrate import calibrate, unfused_values
from knet_hvd.data_parallel.exchanges.base import ExchangeChoice
from knet_hvd.performance import Advice, ExchangeMethod, advise

_logger = logging.getLogger("knet_hvd")


def choose_compression(
    parameters: Sequence[NamedParameter],
    config: TernaryConfig,
    exchange: ExchangeChoice,
    process_set: hvd.ProcessSet,
) -> Advice | None:
    """Time the methods on all ranks and choose one for these parameters.

    Args:
        parameters: The same on all ranks; their values count, and on which device.
        config: Settings of the ternary codec.
        exchange: ``"auto"``, or the only exchange of codes to consider.
        process_set: The ranks that train together.

    Returns:
        The same advice on every rank; rank 0 logs it. None where there is no choice: on
        one rank, and with bf16 gradients, which Horovod cannot sum.
    """
    dtypes = {parameter.tensor.dtype for parameter in parameters}
    alone = not process_set.included() or process_set.size() == 1
    if alone or not parameters or torch.bfloat16 in dtypes:
        return None
    methods: list[ExchangeMethod] = ["fp32", "fp16"]
    methods += ["allgather", "alltoall"] if exchange == "auto" else [exchange]
    device = parameters[0].tensor.device
    sizes = [parameter.tensor.numel() for parameter in parameters]
    unfused = _largest(unfused_values(sizes), process_set)
    model = calibrate(
        *(process_set, config), device=device, methods=methods, time_large=unfused > 0
    )
    # Small ones cross together in one buffer, which every measured point has as well.
    num_tensors = sum(size >= config.min_values for size in sizes)
    advice = advise(model, sum(sizes), num_tensors, unfused)
    if process_set.rank() == 0:
        _logger.info("compression='auto' on %d ranks: %s", model.num_ranks, advice)
    return advice


def _largest(value: int, process_set: hvd.ProcessSet) -> int:
    """Return the largest of all ranks' values: launchers may forward no variables."""
    own = torch.tensor([value])
    name = "knet_hvd.auto_compression.largest"
    return int(hvd.allreduce(own, op=hvd.Max, name=name, process_set=process_set))


def named_choice(advice: Advice | None, exchange: ExchangeChoice) -> tuple[str, ExchangeChoice]:
    """Return the ``compression`` and ``exchange`` arguments that an advice stands for.

    Args:
        advice: None for ternary codes.
        exchange: What was asked for.
    """
    if advice is None:
        return "ternary", exchange
    if advice.method == "allgather" or advice.method == "alltoall":
        return "ternary", advice.method
    return ("none" if advice.method == "fp32" else "fp16"), exchange

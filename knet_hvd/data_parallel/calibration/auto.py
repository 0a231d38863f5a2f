"""``compression="auto"``: calibrate on the running ranks, and take what is fastest."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch

from knet_hvd.collectives import Collectives
from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.buckets.plan import NamedParameter
from knet_hvd.data_parallel.calibration.calibrate import calibrate, unfused_values
from knet_hvd.data_parallel.exchanges.registry import EXCHANGES, ExchangeChoice
from knet_hvd.performance import FP16, FP32, Advice, advise

_logger = logging.getLogger("knet_hvd")


class CompressionChoice(NamedTuple):
    """Two arguments of ``DistributedOptimizer``."""

    compression: str
    exchange: ExchangeChoice


def choose_method(
    parameters: Sequence[NamedParameter],
    config: TernaryConfig,
    exchange: ExchangeChoice,
    collectives: Collectives,
) -> Advice | None:
    """Time the methods on all ranks and choose one for these parameters.

    Args:
        parameters: The same on all ranks; their values count, and on which device.
        config: Settings of the ternary codec.
        exchange: ``"auto"``, or the only exchange of codes to consider.
        collectives: The ranks that train together.

    Returns:
        The same advice on every rank; rank 0 logs it. None where there is no choice: on
        one rank, and with bf16 gradients, which Horovod cannot sum.
    """
    dtypes = {parameter.tensor.dtype for parameter in parameters}
    if collectives.size == 1 or not parameters or torch.bfloat16 in dtypes:
        return None
    sizes = [parameter.tensor.numel() for parameter in parameters]
    # The largest of all ranks' values: launchers may forward no variables.
    own = torch.tensor([unfused_values(sizes, collectives.fusion_bytes)])
    unfused = int(collectives.maximum(own, "auto.largest").wait())
    codes = list(EXCHANGES) if exchange == "auto" else [exchange]
    model = calibrate(
        collectives,
        config,
        device=parameters[0].tensor.device,
        methods=[FP32.name, FP16.name, *codes],
        time_large=unfused > 0,
    )
    # Small ones cross together in one buffer, which every measured point has as well.
    num_tensors = sum(size >= config.min_values for size in sizes)
    advice = advise(model, sum(sizes), num_tensors, unfused)
    if collectives.rank == 0:
        _logger.info("compression='auto' on %d ranks: %s", model.num_ranks, advice)
    return advice


def advised_choice(advice: Advice | None, exchange: ExchangeChoice) -> CompressionChoice:
    """Return the arguments that an advice stands for.

    Args:
        advice: None for ternary codes.
        exchange: What was asked for.
    """
    if advice is None:
        return CompressionChoice("ternary", exchange)
    if advice.compresses:
        return CompressionChoice("ternary", advice.method)
    return CompressionChoice("none" if advice.formula == FP32 else "fp16", exchange)

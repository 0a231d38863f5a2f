"""Calibrates the cost model: times real exchanges on the ranks of a running job."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import horovod.torch as hvd
import torch

from knet_hvd.compression import TernaryCodec, TernaryConfig
from knet_hvd.data_parallel.buckets.plan import MAX_BUCKET_VALUES
from knet_hvd.data_parallel.calibration.timed_exchanges import codec_seconds, exchange_runner
from knet_hvd.performance import (
    EXCHANGE_METHODS,
    FLOAT_METHODS,
    CostModel,
    ExchangeMethod,
    MethodCost,
    TimeCurve,
)

_SIZES = tuple(2**exponent for exponent in (12, 16, 18, 19, 20, 22, 24))
_SMALL = 2**12
_MANY_TENSORS = 32
_REPEATS = 5
_SMALL_REPEATS = 11  # below 2**20 values; TCP makes single ones twice as long

_FUSION_BUFFER_BYTES = 128 * 2**20  # Horovod's default
_LARGE = 36 * 2**20  # a gradient of so many fp32 values does not fit

_Times = dict[ExchangeMethod, float]
_Key = TypeVar("_Key")


def calibrate(
    process_set: hvd.ProcessSet = hvd.global_process_set,
    config: TernaryConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    methods: Sequence[ExchangeMethod] = EXCHANGE_METHODS,
    limit_s: float = 0.5,
    time_large: bool = True,
) -> CostModel:
    """Time exchanges of growing sizes by every method, on all ranks together.

    Takes seconds: a method's sizes end where the next one would take ``limit_s``.

    Args:
        process_set: The ranks that exchange; all of them call this.
        config: Settings of the codec; the same on all ranks.
        device: Where gradients lie.
        methods: What to time.
        limit_s: See above.
        time_large: Whether to time a gradient larger than Horovod's fusion buffer too,
            which takes memory and time; the same on all ranks.

    Returns:
        The same model on every rank.
    """
    place = torch.device(device)
    codec = TernaryCodec(
        replace(config or TernaryConfig(), min_values=512, float_parameters=()), hvd.rank()
    )

    def time_all(sizes: list[int], of: Iterable[ExchangeMethod]) -> _Times:
        runs = {m: exchange_runner(m, sizes, codec, process_set, place) for m in of}
        repeats = _SMALL_REPEATS if sum(sizes) < 2**20 else _REPEATS
        return _exchange_times(runs, process_set, repeats)

    seconds: dict[ExchangeMethod, list[float]] = {method: [] for method in methods}
    for number, size in enumerate(_SIZES):
        growth = size / _SIZES[number - 1]
        of = [m for m in methods if number < 2 or growth * seconds[m][-1] <= limit_s]
        for method, elapsed_s in time_all(_parts(size), of).items():
            seconds[method].append(elapsed_s)
    one = time_all([_SMALL * _MANY_TENSORS], methods)
    many = time_all([_SMALL] * _MANY_TENSORS, methods)
    costs = {
        method: MethodCost(
            TimeCurve(_SIZES[: len(curve)], tuple(curve)),
            max(0.0, many[method] - one[method]) / (_MANY_TENSORS - 1),
        )
        for method, curve in seconds.items()
    }
    num_ranks = int(process_set.size())
    codec_s = {
        method: _slowest(codec_seconds(method, codec, num_ranks, place), process_set)
        for method in methods
    }
    for method in FLOAT_METHODS:
        if time_large and method in costs:
            curve = costs[method].curve
            size = _LARGE if curve.at(_LARGE) <= limit_s else int(curve.sizes[-1])
            share = _unfused_share(method, size, codec, process_set, place)
            costs[method] = replace(costs[method], unfused_share=share)
    return CostModel(num_ranks, costs, codec_s)


def unfused_values(sizes: Iterable[int]) -> int:
    """Return how many fp32 values are in gradients that Horovod does not copy.

    It joins gradients in a buffer of ``HOROVOD_FUSION_THRESHOLD`` bytes; a larger one
    crosses from where it lies.

    Args:
        sizes: Values of each gradient.
    """
    buffer = int(os.environ.get("HOROVOD_FUSION_THRESHOLD") or _FUSION_BUFFER_BYTES)
    return sum(size for size in sizes if 4 * size > buffer)


def _unfused_share(
    method: ExchangeMethod,
    size: int,
    codec: TernaryCodec,
    process_set: hvd.ProcessSet,
    device: torch.device,
) -> float:
    """Return the time of one large gradient over that of its parts in the buffer.

    fp32 saves a copy, so that more than 1 is noise. fp16 takes new memory for its
    tensors each time, which the C library gives back at once if they are large.
    """
    runs = {
        fused: exchange_runner(
            method, _parts(size) if fused else [size], codec, process_set, device, with_bias=fused
        )
        for fused in (True, False)
    }
    times = _exchange_times(runs, process_set, _REPEATS)
    share = times[False] / times[True]
    return min(1.0, share) if method == "fp32" else share


def _parts(size: int) -> list[int]:
    """Return parts as large as a bucket, as the layers of a network would fill them."""
    number = -(-size // MAX_BUCKET_VALUES)
    return [size // number] * number


def _exchange_times(
    runs: dict[_Key, Callable[[], None]], process_set: hvd.ProcessSet, repeats: int
) -> dict[_Key, float]:
    """Return the median seconds of each function on the slowest rank.

    They run in turns, so that what else disturbs the machines hits all alike.
    """
    samples: dict[_Key, list[float]] = {key: [] for key in runs}
    for repeat in range(1 + repeats):
        for key, run in runs.items():
            elapsed_s = _slowest(_elapsed_s(run, process_set), process_set)
            if repeat:  # the first one warms up
                samples[key].append(elapsed_s)
    return {key: statistics.median(times) for key, times in samples.items()}


def _elapsed_s(run: Callable[[], None], process_set: hvd.ProcessSet) -> float:
    """Return the seconds of a function that all ranks begin together."""
    hvd.allreduce(torch.zeros(1), name="knet_hvd.calibration.start", process_set=process_set)
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _slowest(seconds: float, process_set: hvd.ProcessSet) -> float:
    """Return the largest value of all ranks."""
    own = torch.tensor([seconds], dtype=torch.float64)
    name = "knet_hvd.calibration.slowest"
    return float(hvd.allreduce(own, op=hvd.Max, name=name, process_set=process_set))

"""Calibrates the cost model: times real exchanges on the ranks of a running job."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import horovod.torch as hvd
import torch

from knet_hvd.compression import TernaryCodec, TernaryConfig
from knet_hvd.data_parallel.buckets import MAX_BUCKET_VALUES
from knet_hvd.data_parallel.calibration_runs import codec_seconds, exchange_runner
from knet_hvd.performance import (
    EXCHANGE_METHODS,
    CostModel,
    ExchangeMethod,
    MethodCost,
    TimeCurve,
)

_SIZES = tuple(2**exponent for exponent in (12, 16, 18, 20, 22, 24))
_SMALL = 2**12
_MANY_TENSORS = 32
_REPEATS = 5

_Times = dict[ExchangeMethod, float]


def calibrate(
    process_set: hvd.ProcessSet = hvd.global_process_set,
    config: TernaryConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    methods: Sequence[ExchangeMethod] = EXCHANGE_METHODS,
    limit_s: float = 0.5,
) -> CostModel:
    """Time exchanges of growing sizes by every method, on all ranks together.

    Takes seconds: a method's sizes end where the next one would take ``limit_s``.

    Args:
        process_set: The ranks that exchange; all of them call this.
        config: Settings of the codec; the same on all ranks.
        device: Where gradients lie.
        methods: What to time.
        limit_s: See above.

    Returns:
        The same model on every rank.
    """
    place = torch.device(device)
    codec = TernaryCodec(
        replace(config or TernaryConfig(), min_values=512, float_parameters=()),
        hvd.rank(),
    )

    def time_all(sizes: list[int], of: Iterable[ExchangeMethod]) -> _Times:
        runs = {m: exchange_runner(m, sizes, codec, process_set, place) for m in of}
        return _exchange_times(runs, process_set)

    seconds: dict[ExchangeMethod, list[float]] = {method: [] for method in methods}
    for number, size in enumerate(_SIZES):
        growth = size / _SIZES[number - 1]
        of = [m for m in methods if number < 2 or growth * seconds[m][-1] <= limit_s]
        # Parts as large as a bucket, as the layers of a network would fill them.
        parts = -(-size // MAX_BUCKET_VALUES)
        for method, elapsed_s in time_all([size // parts] * parts, of).items():
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
    return CostModel(num_ranks, costs, codec_s)


def _exchange_times(
    runs: dict[ExchangeMethod, Callable[[], None]], process_set: hvd.ProcessSet
) -> _Times:
    """Return the median seconds of each function on the slowest rank.

    They run in turns, so that what else disturbs the machines hits all alike.
    """
    samples: dict[ExchangeMethod, list[float]] = {method: [] for method in runs}
    for repeat in range(1 + _REPEATS):
        for method, run in runs.items():
            elapsed_s = _slowest(_elapsed_s(run, process_set), process_set)
            if repeat:  # the first one warms up
                samples[method].append(elapsed_s)
    return {method: statistics.median(times) for method, times in samples.items()}


def _elapsed_s(run: Callable[[], None], process_set: hvd.ProcessSet) -> float:
    """Return the seconds of a function that all ranks begin together."""
    hvd.allreduce(
        torch.zeros(1), name="knet_hvd.calibration.start", process_set=process_set
    )
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _slowest(seconds: float, process_set: hvd.ProcessSet) -> float:
    """Return the largest value of all ranks."""
    own = torch.tensor([seconds], dtype=torch.float64)
    name = "knet_hvd.calibration.slowest"
    return float(hvd.allreduce(own, op=hvd.Max, name=name, process_set=process_set))

"""Calibrates the cost model: times real exchanges on the ranks of a running job."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from knet_hvd import ops
from knet_hvd.collectives import Collectives
from knet_hvd.compression import TernaryCodec, TernaryConfig
from knet_hvd.data_parallel.buckets.plan import MAX_BUCKET_VALUES
from knet_hvd.data_parallel.calibration.methods import (
    TimedMethod,
    elapsed_s,
    random_parameters,
    timed_methods,
)
from knet_hvd.performance import FP32, CostModel, MethodCost, TimeCurve

_SIZES = tuple(2**exponent for exponent in (12, 16, 18, 19, 20, 22, 24))
_SMALL = 2**12
_MANY_TENSORS = 32
_REPEATS = 5
_SMALL_REPEATS = 11  # below 2**20 values; TCP makes single ones twice as long
_LARGE = 36 * 2**20  # a gradient of so many fp32 values does not fit Horovod's fusion buffer

_Key = TypeVar("_Key")


def calibrate(
    collectives: Collectives,
    config: TernaryConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    methods: Sequence[str] | None = None,
    limit_s: float = 0.5,
    time_large: bool = True,
) -> CostModel:
    """Time exchanges of growing sizes by every method, on all ranks together.

    Takes seconds: a method's sizes end where the next one would take ``limit_s``.

    Args:
        collectives: The ranks that exchange; all of them call this.
        config: Settings of the codec; the same on all ranks.
        device: Where gradients lie.
        methods: Names of what to time; all if not given.
        limit_s: The longest exchange to time, in seconds.
        time_large: Whether to time a gradient larger than the fusion buffer too, which
            takes memory and time; the same on all ranks.

    Returns:
        The same model on every rank.
    """
    known = timed_methods()
    chosen = {name: known[name] for name in (methods if methods is not None else known)}
    config = replace(config or TernaryConfig(), min_values=512, float_parameters=())
    codec = TernaryCodec(config, collectives.job_rank)
    timer = _Timer(collectives, codec, torch.device(device))
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for number, size in enumerate(_SIZES):
        growth = size / _SIZES[number - 1]
        quick = [n for n in chosen if number < 2 or growth * seconds[n][-1] <= limit_s]
        for name, taken_s in timer.time_all(chosen, quick, _parts(size)).items():
            seconds[name].append(taken_s)
    one = timer.time_all(chosen, chosen, [_SMALL * _MANY_TENSORS])
    many = timer.time_all(chosen, chosen, [_SMALL] * _MANY_TENSORS)
    costs = {
        name: MethodCost(
            chosen[name].formula,
            TimeCurve(_SIZES[: len(curve)], tuple(curve)),
            max(0.0, many[name] - one[name]) / (_MANY_TENSORS - 1),
        )
        for name, curve in seconds.items()
    }
    codec_s = {name: timer.codec_s(method) for name, method in chosen.items()}
    for name, method in chosen.items():
        if time_large and not method.formula.sends_codes:
            curve = costs[name].curve
            size = _LARGE if curve.at(_LARGE) <= limit_s else int(curve.sizes[-1])
            costs[name] = replace(costs[name], unfused_share=timer.unfused_share(method, size))
    return CostModel(collectives.size, costs, codec_s, ops.code_bits(config.wire_format))


def unfused_values(sizes: Iterable[int], fusion_bytes: int) -> int:
    """Return how many fp32 values are in gradients that the transport does not copy.

    Args:
        sizes: Values of each gradient.
        fusion_bytes: Size of the buffer in which the transport joins gradients; a
            larger one crosses from where it lies.
    """
    return sum(size for size in sizes if 4 * size > fusion_bytes)


def _parts(size: int) -> list[int]:
    """Return parts as large as a bucket, as the layers of a network would fill them."""
    number = -(-size // MAX_BUCKET_VALUES)
    return [size // number] * number


@dataclass(frozen=True, slots=True)
class _Timer:
    """Time methods on all ranks together."""

    collectives: Collectives
    codec: TernaryCodec
    device: torch.device

    def time_all(
        self, methods: Mapping[str, TimedMethod], names: Iterable[str], sizes: list[int]
    ) -> dict[str, float]:
        """Return the seconds of an exchange of weights of these sizes and a bias."""
        runs = {name: self._runner(methods[name], sizes) for name in names}
        return self._medians(runs, _SMALL_REPEATS if sum(sizes) < 2**20 else _REPEATS)

    def unfused_share(self, method: TimedMethod, size: int) -> float:
        """Return the time of one large gradient over that of its parts in the buffer.

        fp32 saves a copy, so that more than 1 is noise. fp16 takes new memory for its
        tensors each time, which the C library gives back at once if they are large.
        """
        runs = {
            True: self._runner(method, _parts(size)),
            False: self._runner(method, [size], with_bias=False),
        }
        times = self._medians(runs, _REPEATS)
        share = times[False] / times[True]
        return min(1.0, share) if method.formula == FP32 else share

    def codec_s(self, method: TimedMethod) -> float:
        """Return the seconds a value that the codec takes on the slowest rank."""
        return self._slowest(method.codec_s(self.codec, self.collectives.size, self.device))

    def _runner(
        self, method: TimedMethod, sizes: list[int], *, with_bias: bool = True
    ) -> Callable[[], None]:
        prefix = f"calibration.{method.formula.name}.{len(sizes)}.{with_bias}"
        parameters = random_parameters(sizes, self.device, prefix, with_bias=with_bias)
        return method.runner(parameters, self.codec, self.collectives)

    def _medians(self, runs: dict[_Key, Callable[[], None]], repeats: int) -> dict[_Key, float]:
        """Return the median seconds of each function on the slowest rank.

        They run in turns, so that what else disturbs the machines hits all alike.
        """
        samples: dict[_Key, list[float]] = {key: [] for key in runs}
        for repeat in range(1 + repeats):
            for key, run in runs.items():
                self.collectives.sum(torch.zeros(1), "calibration.start").wait()
                taken_s = self._slowest(elapsed_s(run, self.device))
                if repeat:  # the first one warms up
                    samples[key].append(taken_s)
        return {key: statistics.median(times) for key, times in samples.items()}

    def _slowest(self, seconds: float) -> float:
        """Return the largest value of all ranks."""
        own = torch.tensor([seconds], dtype=torch.float64)
        return float(self.collectives.maximum(own, "calibration.slowest").wait())

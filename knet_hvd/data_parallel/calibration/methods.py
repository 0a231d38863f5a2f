"""The ways to exchange gradients that calibration times."""

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch

from knet_hvd.collectives import Collectives
from knet_hvd.compression import TernaryCodec
from knet_hvd.data_parallel.buckets.plan import (
    MAX_BUCKET_VALUES,
    NamedParameter,
    plan_buckets,
)
from knet_hvd.data_parallel.calibration.loopback import LoopbackCollectives
from knet_hvd.data_parallel.exchanges.base import Exchange
from knet_hvd.data_parallel.exchanges.registry import EXCHANGES
from knet_hvd.data_parallel.reducer.reducer import GradientReducer
from knet_hvd.data_parallel.reducer.state import ReductionState
from knet_hvd.performance import FP16, FP32, ExchangeFormula

_BIAS_VALUES = 256
_CPU_CODEC_VALUES = 2**20
_GPU_CODEC_VALUES = 2**24  # fewer would time the launches of kernels
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class TimedMethod(ABC):
    """One way to exchange gradients.

    Attributes:
        formula: Its name, and what it costs by formula.
    """

    formula: ExchangeFormula

    @abstractmethod
    def runner(
        self, parameters: list[NamedParameter], codec: TernaryCodec, collectives: Collectives
    ) -> Callable[[], None]:
        """Return a function that averages the parameters' gradients over the ranks."""

    @abstractmethod
    def codec_s(self, codec: TernaryCodec, num_ranks: int, device: torch.device) -> float:
        """Return the seconds a value that the codec takes on this rank's processor."""


@dataclass(frozen=True, slots=True)
class FloatMethod(TimedMethod):
    """Average as the transport's own optimizer does, each gradient by itself."""

    dtype: torch.dtype

    def runner(
        self, parameters: list[NamedParameter], codec: TernaryCodec, collectives: Collectives
    ) -> Callable[[], None]:
        """See ``TimedMethod.runner``."""

        def exchange() -> None:
            pending = []
            for parameter in parameters:
                gradient = parameter.tensor.grad
                assert gradient is not None
                sent = gradient.to(self.dtype)
                pending.append((parameter.tensor, collectives.mean(sent, parameter.name)))
            for tensor, handle in pending:
                tensor.grad = handle.wait().to(torch.float32)

        return exchange

    def codec_s(self, codec: TernaryCodec, num_ranks: int, device: torch.device) -> float:
        """Return 0: there is no codec."""
        return 0.0


@dataclass(frozen=True, slots=True)
class CodeMethod(TimedMethod):
    """Exchange ternary codes."""

    exchange: type[Exchange]

    def runner(
        self, parameters: list[NamedParameter], codec: TernaryCodec, collectives: Collectives
    ) -> Callable[[], None]:
        """See ``TimedMethod.runner``."""
        buckets = plan_buckets(parameters, codec, MAX_BUCKET_VALUES)
        exchange = self.exchange(codec, collectives, collectives.size)
        return GradientReducer(ReductionState(codec, exchange), *buckets).finish

    def codec_s(self, codec: TernaryCodec, num_ranks: int, device: torch.device) -> float:
        """See ``TimedMethod.codec_s``."""
        on_gpu = device.type == "cuda"
        size = _GPU_CODEC_VALUES if on_gpu else _CPU_CODEC_VALUES
        parameters = random_parameters([size], device, "calibration.codec")
        run = self.runner(parameters, codec, LoopbackCollectives(num_ranks))
        run()
        times = [elapsed_s(run, device) for _ in range(_REPEATS)]
        return statistics.median(times) / size


def timed_methods() -> dict[str, TimedMethod]:
    """Return all methods by name: two in floating point, and every exchange of codes."""
    methods: list[TimedMethod] = [
        FloatMethod(FP32, torch.float32),
        FloatMethod(FP16, torch.float16),
        *(CodeMethod(exchange.formula, exchange) for exchange in EXCHANGES.values()),
    ]
    return {method.formula.name: method for method in methods}


def random_parameters(
    sizes: list[int], device: torch.device, prefix: str, *, with_bias: bool = False
) -> list[NamedParameter]:
    """Return parameters whose gradients are random.

    Args:
        sizes: Values of each.
        device: Where they lie.
        prefix: Their names begin with it.
        with_bias: Whether to add a small one; a gradient on its own is not copied to
            the transport's fusion buffer.
    """
    # A generator of their own: how much is timed must not change the user's numbers.
    generator = torch.Generator(device).manual_seed(0)
    parameters = []
    for number, size in enumerate([*sizes, *([_BIAS_VALUES] if with_bias else [])]):
        tensor = torch.zeros(size, device=device)
        tensor.grad = torch.randn(size, device=device, generator=generator)
        parameters.append(NamedParameter(f"{prefix}.{number}", tensor, number))
    return parameters


def elapsed_s(run: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of a function; on a GPU until its kernels have ended."""
    _finish_kernels(device)
    start_s = time.perf_counter()
    run()
    _finish_kernels(device)
    return time.perf_counter() - start_s


def _finish_kernels(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""What calibration times: exchanges of given sizes, and the codec alone."""

import statistics
import time
from collections.abc import Callable

import horovod.torch as hvd
import torch
from torch import Tensor

from knet_hvd.compression import LevelsCodec, TernaryCodec, local_scales
from knet_hvd.data_parallel.buckets.plan import (
    CHUNK_VALUES,
    MAX_BUCKET_VALUES,
    NamedParameter,
    plan_buckets,
)
from knet_hvd.data_parallel.exchanges.registry import make_exchange
from knet_hvd.data_parallel.reducer.bucket_reduction import BucketSteps
from knet_hvd.data_parallel.reducer.reducer import GradientReducer
from knet_hvd.performance import ExchangeMethod

_BIAS_VALUES = 256
_CODEC_VALUES = 2**20
_REPEATS = 5


def exchange_runner(
    method: ExchangeMethod,
    sizes: list[int],
    codec: TernaryCodec,
    process_set: hvd.ProcessSet,
    device: torch.device,
    *,
    with_bias: bool = True,
) -> Callable[[], None]:
    """Return a function that exchanges weights of these sizes, and a bias.

    Args:
        method: How.
        sizes: Values of each weight.
        codec: Used by the exchanges of codes.
        process_set: The ranks that exchange.
        device: Where the gradients lie.
        with_bias: Whether there is one; a gradient on its own is not copied to
            Horovod's fusion buffer.
    """
    parameters = []
    # Of its own: how much is timed, and so drawn, must not change the user's numbers.
    generator = torch.Generator(device).manual_seed(0)
    biases = [_BIAS_VALUES] if with_bias else []
    for number, size in enumerate([*sizes, *biases]):
        tensor = torch.zeros(size, device=device)
        tensor.grad = torch.randn(size, device=device, generator=generator)
        name = f"calibration.{method}.{len(sizes)}.{with_bias}.{number}"
        parameters.append(NamedParameter(name, tensor, number))
    if method == "fp32" or method == "fp16":
        compression = hvd.Compression.none if method == "fp32" else hvd.Compression.fp16
        return lambda: _exchange_floats(parameters, compression, process_set)
    exchange = make_exchange(method, codec, process_set, int(process_set.size()))
    buckets = plan_buckets(parameters, codec, MAX_BUCKET_VALUES, chunk_values=CHUNK_VALUES)
    steps = BucketSteps(codec, exchange, hvd.Compression.none)
    return GradientReducer(steps, *buckets).finish


def _exchange_floats(
    parameters: list[NamedParameter],
    compression: type[hvd.Compression.none],
    process_set: hvd.ProcessSet,
) -> None:
    """Average gradients as ``hvd.DistributedOptimizer`` does."""
    pending: list[tuple[int, Tensor, object]] = []
    for parameter in parameters:
        gradient = parameter.tensor.grad
        compressed, context = compression.compress(gradient)
        handle = hvd.allreduce_async_(
            compressed, name=f"knet_hvd.{parameter.name}", op=hvd.Average, process_set=process_set
        )
        pending.append((handle, parameter.tensor, context))
    for handle, tensor, context in pending:
        tensor.grad = compression.decompress(hvd.synchronize(handle), context)


def codec_seconds(
    method: ExchangeMethod, codec: TernaryCodec, num_ranks: int, device: torch.device
) -> float:
    """Return the seconds a value that this rank's processor takes for one method.

    Args:
        method: Horovod's float exchanges have no codec.
        codec: Whose.
        num_ranks: Ranks that exchange.
        device: Where the gradients lie.
    """
    if method in ("fp32", "fp16"):
        return 0.0
    numel = _CODEC_VALUES
    generator = torch.Generator(device).manual_seed(0)
    values = torch.randn(numel, device=device, generator=generator)
    payload = torch.empty(codec.payload_bytes(numel), dtype=torch.uint8, device=device)
    payloads = payload.new_zeros(num_ranks, payload.numel())
    sums = torch.zeros(numel, dtype=torch.int16, device=device)
    levels = LevelsCodec(num_ranks)
    words = levels.pack(sums)

    def run() -> None:
        scales = local_scales([values], codec.config)
        codec.encode([values], scales, [0], 0, payload)
        if method == "allgather":
            codec.decode(payloads, scales, [values], num_ranks)
        else:
            levels.unpack(words, sums)
            codec.dequantize(sums, scales, [values], num_ranks)

    run()
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times) / numel

"""Measure the speed of the codec beside memcpy and a codec of PyTorch operations.

    python benchmarks/codec/codec.py --threads 1 --values 67108864
    KNET_CPU=avx2 python benchmarks/codec/codec.py

Every repetition runs each operation once, in turn, so that a drift of the machine's
speed meets all of them; the figures are medians over repetitions, in 10^9 values a
second. JSON:

stats_encode      statistics, then encode: what a gradient costs before the exchange
decode_add        decode and add N payloads into the gradient
ratio_to_memcpy   time of the operation over that of a memcpy of the fp32 tensor
torch_ops         TernGrad as PyTorch operations with int8 codes, the usual peer
peak_extra_bytes  what statistics + encode allocate beyond the payload
"""

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from knet_hvd import ops
from knet_hvd.compression import LevelsCodec, TernaryConfig, local_scales

KEY = (0, 0, 0)


def torch_ops_terngrad(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Clip at 2.5 sigma and ternarize to int8 codes with PyTorch operations."""
    limit = 2.5 * gradient.std()
    clipped = gradient.clamp(-limit, limit)
    scale = clipped.abs().max()
    fires = torch.rand_like(clipped) < clipped.abs() / scale
    return (clipped.sign() * fires).to(torch.int8), scale


class Operations:
    """The operations to time, on one tensor."""

    def __init__(self, num_values: int, device: str, num_payloads: int) -> None:
        """Allocate everything once.

        Args:
            num_values: Length of the gradient.
            device: Where it lies.
            num_payloads: N of decode_add.
        """
        generator = torch.Generator(device).manual_seed(0)
        self.gradient = torch.randn(num_values, device=device, generator=generator)
        self.gradient *= 0.01
        self.target = torch.empty_like(self.gradient)
        self.config = TernaryConfig()
        self.scales = local_scales([self.gradient], self.config)
        self.sums = torch.empty(num_values, dtype=torch.int16, device=device)
        self.payloads: dict[str, Tensor] = {}
        for wire_format in ops.WIRE_FORMATS:
            rows = [self._encoded(wire_format, rank) for rank in range(num_payloads)]
            self.payloads[wire_format] = torch.stack(rows)
        ops.unpack_sum(self.payloads["trit5"], "trit5", self.sums)
        self.levels = LevelsCodec(num_payloads)
        self.words = self.levels.pack(self.sums)

    def _encoded(self, wire_format: ops.WireFormat, rank: int) -> Tensor:
        return ops.ternarize(
            [self.gradient], self.scales, key=(0, rank, 0), streams=[0], wire_format=wire_format
        )

    def memcpy(self) -> None:
        """Copy the fp32 tensor with libc (on a GPU with torch)."""
        if self.gradient.device.type != "cpu":
            self.target.copy_(self.gradient)
            return
        size = ctypes.c_size_t(4 * self.gradient.numel())
        source = ctypes.c_void_p(self.gradient.data_ptr())
        ctypes.CDLL(None).memcpy(ctypes.c_void_p(self.target.data_ptr()), source, size)

    def encode(self, wire_format: ops.WireFormat) -> None:
        """Encode under known scales."""
        payload = self.payloads[wire_format][0]
        ops.ternarize(
            [self.gradient], self.scales, payload, key=KEY, streams=[0], wire_format=wire_format
        )

    def stats_encode(self, wire_format: ops.WireFormat) -> None:
        """Encode under scales taken from the tensor."""
        self.scales = local_scales([self.gradient], self.config)
        self.encode(wire_format)

    def decode_add(self, wire_format: ops.WireFormat, num_payloads: int) -> None:
        """Decode and add payloads."""
        payloads = self.payloads[wire_format][:num_payloads]
        ops.decode_mean(
            payloads, self.scales, [self.target], divisor=num_payloads, wire_format=wire_format
        )

    def all(self) -> dict[str, Callable[[], object]]:
        """Return the operations by the name they have in the JSON."""
        table: dict[str, Callable[[], object]] = {
            "memcpy": self.memcpy,
            "torch_copy": lambda: self.target.copy_(self.gradient),
            "stats": lambda: ops.statistics([self.gradient]),
            "levels_pack": lambda: self.levels.pack(self.sums, self.words),
            "levels_unpack": lambda: self.levels.unpack(self.words, self.sums),
            "torch_ops": lambda: torch_ops_terngrad(self.gradient),
        }
        num_payloads = len(self.payloads["trit5"])
        for name in ops.WIRE_FORMATS:
            suffix = "" if name == "trit5" else f"_{name}"
            table[f"encode{suffix}"] = lambda name=name: self.encode(name)
            table[f"stats_encode{suffix}"] = lambda name=name: self.stats_encode(name)
            table[f"decode_add{suffix}"] = lambda name=name: self.decode_add(name, 1)
            table[f"decode_add_{num_payloads}_payloads{suffix}"] = lambda name=name: (
                self.decode_add(name, num_payloads)
            )
        return table


def seconds_on_cpu(operation: Callable[[], object]) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    operation()
    return time.perf_counter() - start


def seconds_on_gpu(operation: Callable[[], object]) -> float:
    """Return the time that the GPU works for one call, without that of Python."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(2_000_000)  # a millisecond in which the host queues all that follows
    begin.record()
    operation()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1000


def median_seconds(
    operations: dict[str, Callable[[], object]], repeats: int, device: str
) -> dict[str, float]:
    """Time each operation once a repetition; return the medians."""
    times: dict[str, list[float]] = {name: [] for name in operations}
    for repeat in range(repeats + 1):  # the first one warms up
        for name, operation in operations.items():
            seconds = seconds_on_gpu(operation) if device != "cpu" else seconds_on_cpu(operation)
            if repeat:
                times[name].append(seconds)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_extra_bytes(operations: Operations) -> int:
    """Return the most that statistics + encode hold beyond gradient and payload."""
    with torch.profiler.profile(profile_memory=True) as profile:
        operations.stats_encode("trit5")
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--values", type=int, default=1 << 26)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--payloads", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    operations = Operations(args.values, args.device, args.payloads)
    seconds = median_seconds(operations.all(), args.repeats, args.device)
    memcpy = seconds["memcpy"]
    result: dict[str, object] = {
        "kernels": ops.backend(args.device),
        "threads": args.threads,
        "values": args.values,
    }
    for name, value in seconds.items():
        result[f"{name}_gvalues_s"] = round(args.values / value / 1e9, 4)
    result["ratio_to_memcpy"] = {n: round(v / memcpy, 3) for n, v in seconds.items()}
    result["stats_encode_over_torch_ops"] = round(seconds["torch_ops"] / seconds["stats_encode"], 1)
    if args.device == "cpu":
        result["peak_extra_bytes"] = peak_extra_bytes(operations)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

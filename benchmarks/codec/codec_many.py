"""Measure what one call for many tensors saves over a call for each.

    python benchmarks/codec/codec_many.py --network resnet50

The gradients are a network's, by shapes. Every repetition runs both ways of each
operation, in turn, so that a drift of the machine's speed meets all of them; the
figures are medians over repetitions, in microseconds. JSON.
"""

import argparse
import json
import sys
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.codec.codec import median_seconds
from benchmarks.codec.gradient_sets import GRADIENT_SETS, num_values
from knet_hvd import ops
from knet_hvd.compression import TernaryCodec, TernaryConfig, local_scales


class ManyOperations:
    """The operations to time, on a network's gradients on two ranks."""

    def __init__(self, network: str, device: str) -> None:
        """Allocate everything once."""
        self.codec = TernaryCodec(TernaryConfig(), rank=0)
        shapes = [shape for _, shape in GRADIENT_SETS[network]()]
        self.values = [torch.randn(s, device=device).view(-1) * 0.01 for s in shapes]
        self.outs = [torch.empty_like(value) for value in self.values]
        self.scales = local_scales(self.values, self.codec.config)
        self.streams = list(range(len(shapes)))
        sizes = [self.codec.payload_bytes(value.numel()) for value in self.values]
        self.payload = self.values[0].new_empty(sum(sizes), dtype=torch.uint8)
        self.payloads = torch.zeros_like(self.payload).expand(2, -1).contiguous()
        planes = ops.block_values("trit5") // ops.BLOCK_BYTES
        self.sums = self.payload.new_zeros(planes * sum(sizes), dtype=torch.int16)
        self.bytes = list(zip(accumulate([0, *sizes]), sizes, strict=False))
        self.firsts = [planes * first for first, _ in self.bytes]

    def scales_each(self) -> None:
        """Scale of each gradient."""
        config = self.codec.config
        torch.cat([local_scales([value], config) for value in self.values])

    def scales_many(self) -> None:
        """Scales of all gradients."""
        local_scales(self.values, self.codec.config)

    def encode_each(self) -> None:
        """Codes of each gradient."""
        for number, value in enumerate(self.values):
            own = self.payload.narrow(0, *self.bytes[number])
            scale = self.scales.narrow(0, number, 1)
            self.codec.encode([value], scale, [number], 0, own)

    def encode_many(self) -> None:
        """Codes of all gradients."""
        self.codec.encode(self.values, self.scales, self.streams, 0, self.payload)

    def decode_each(self) -> None:
        """Each gradient from two ranks' codes, as ``allgather`` does it."""
        for number, out in enumerate(self.outs):
            own = self.payloads.narrow(1, *self.bytes[number])
            self.codec.decode(own, self.scales.narrow(0, number, 1), [out], 2)

    def decode_many(self) -> None:
        """All gradients from two ranks' codes."""
        self.codec.decode(self.payloads, self.scales, self.outs, 2)

    def dequantize_each(self) -> None:
        """Each gradient from the sums of codes, as ``alltoall`` does it."""
        for number, out in enumerate(self.outs):
            own = self.sums.narrow(0, self.firsts[number], out.numel())
            self.codec.dequantize(own, self.scales.narrow(0, number, 1), [out], 2)

    def dequantize_many(self) -> None:
        """All gradients from the sums of codes."""
        self.codec.dequantize(self.sums, self.scales, self.outs, 2)

    def all(self) -> dict[str, Callable[[], object]]:
        """Return every operation by name, both ways of each side by side."""
        kinds = ("scales", "encode", "decode", "dequantize")
        names = [f"{kind}_{way}" for kind in kinds for way in ("each", "many")]
        return {name: getattr(self, name) for name in names}


def main() -> None:
    """Parse the command line, measure, print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", choices=sorted(GRADIENT_SETS), default="resnet50")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    operations = ManyOperations(args.network, args.device)
    seconds = median_seconds(operations.all(), args.repeats, args.device)
    shapes = GRADIENT_SETS[args.network]()
    result: dict[str, object] = {
        "kernels": ops.backend(args.device),
        "threads": args.threads,
        "tensors": len(shapes),
        "values": num_values(shapes),
    }
    for name, value in seconds.items():
        result[f"{name}_us"] = round(value * 1e6, 1)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

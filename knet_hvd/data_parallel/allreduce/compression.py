"""Path B's argument: what a script passes as ``compression=``."""

from collections.abc import Iterable
from typing import Any

import horovod.torch as hvd
from torch import Tensor

from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor


class _Ternary:
    """Makes ``TernaryCompressor``; says so if it is passed on without a call."""

    def __call__(
        self,
        named_parameters: Iterable[tuple[str, Tensor]],
        *,
        ternary: TernaryConfig | None = None,
        op: Any = hvd.Average,
        process_set: hvd.ProcessSet = hvd.global_process_set,
    ) -> TernaryCompressor:
        return TernaryCompressor(named_parameters, ternary=ternary, op=op, process_set=process_set)

    def compress(self, tensor: Tensor) -> tuple[Tensor, Any]:
        raise TypeError(
            "compression: Compression.ternary was not called; write "
            "compression=knet_hvd.Compression.ternary(model.named_parameters())"
        )

    decompress = compress


class Compression:
    """The compressors for ``hvd.DistributedOptimizer(compression=...)``.

    ``none`` and ``fp16`` are Horovod's. ``ternary(model.named_parameters())`` makes a
    ``TernaryCompressor``, with its arguments.
    """

    none = hvd.Compression.none
    fp16 = hvd.Compression.fp16
    ternary = _Ternary()

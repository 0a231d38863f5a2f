"""What a distributed optimizer sends and keeps, whichever kind it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from knet_hvd.data_parallel.allreduce.compressor import TernaryCompressor
from knet_hvd.data_parallel.optimizer.ternary import TernaryOptimizer
from knet_hvd.performance import allreduce_bytes


@dataclass(slots=True)
class WireBytes:
    """What a rank sends in a step, by formula; see ``performance.wire_bytes``."""

    compressed: float
    uncompressed: float

    @property
    def ratio(self) -> float:
        """Uncompressed over compressed; 1 where nothing is sent."""
        return self.uncompressed / self.compressed if self.compressed else 1.0


def wire_bytes(
    optimizer: Any, parameters: Sequence[Tensor], compression: str, num_ranks: int
) -> WireBytes:
    """Return what a distributed optimizer sends in a step.

    Args:
        optimizer: What ``DistributedOptimizer`` returned.
        parameters: Its parameters, fp32.
        compression: As it was asked for.
        num_ranks: Ranks that average.
    """
    full = allreduce_bytes(4 * sum(p.numel() for p in parameters), num_ranks)
    advice = optimizer.compression_advice
    if isinstance(optimizer, TernaryOptimizer):
        return WireBytes(optimizer.wire_bytes_per_step, full)
    halved = compression == "fp16" or (advice and advice.method == "fp16")
    return WireBytes(full / 2 if halved else full, full)


def compression_state(optimizer: Any) -> dict[str, Any]:
    """Return what compression keeps on this rank between steps; empty if nothing.

    Args:
        optimizer: Of ``make_optimizer``.
    """
    if isinstance(optimizer, TernaryOptimizer):
        return optimizer.compression_state_dict()
    compressor = _compressor(optimizer)
    return compressor.state_dict() if compressor is not None else {}


def load_compression_state(optimizer: Any, state: dict[str, Any]) -> None:
    """Load what ``compression_state`` returned, or ``merge_compression_states``."""
    if isinstance(optimizer, TernaryOptimizer):
        optimizer.load_compression_state_dict(state)
        return
    compressor = _compressor(optimizer)
    if compressor is not None:
        compressor.load_state_dict(state)


def _compressor(optimizer: Any) -> TernaryCompressor | None:
    """Return path B's compressor, which Horovod's optimizer keeps to itself."""
    found = getattr(optimizer, "_compression", None)
    return found if isinstance(found, TernaryCompressor) else None

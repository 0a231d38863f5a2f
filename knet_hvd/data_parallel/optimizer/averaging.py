"""What every optimizer that averages gradients over ranks can do."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot
from knet_hvd.performance import Advice


@dataclass(frozen=True, slots=True)
class WireBytes:
    """What a rank sends in a step, by formula; see ``performance.wire_bytes``.

    Attributes:
        compressed: Bytes that really cross.
        uncompressed: Bytes that Horovod would send in the gradients' own dtypes.
    """

    compressed: float
    uncompressed: float

    @property
    def ratio(self) -> float:
        """Uncompressed over compressed; 1 where nothing is sent."""
        return self.uncompressed / self.compressed if self.compressed else 1.0


class AveragingOptimizer(Protocol):
    """Average gradients over ranks, then update.

    ``DistributedOptimizer`` returns one, whichever compression was chosen: a
    ``TernaryOptimizer`` or a ``HorovodOptimizer``. Both are also optimizers of the class
    that was wrapped.
    """

    compression_advice: Advice | None
    """What ``compression="auto"`` predicted."""

    param_groups: list[dict[str, Any]]

    @property
    def state(self) -> Mapping[Tensor, Any]:
        """What the optimizer keeps of each parameter."""

    def poll(self) -> bool:
        """Return whether ``step`` would not wait; call it after ``backward`` only."""

    def synchronize(self) -> None:
        """Wait until all gradients are averaged."""

    def skip_synchronize(self) -> AbstractContextManager[None]:
        """Let ``step`` inside this context not average again."""

    def step(self) -> Any:
        """Average the gradients and update the parameters."""

    def zero_grad(self) -> None:
        """Drop the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimizer that was wrapped."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what ``state_dict`` returned."""

    def compression_state_dict(self) -> dict[str, Any]:
        """Return what compression keeps on this rank between steps; empty if nothing."""

    def load_compression_state_dict(self, state: dict[str, Any]) -> None:
        """Load what ``compression_state_dict`` returned on this rank."""

    @property
    def wire_bytes(self) -> WireBytes:
        """What this rank sends in a step."""

    @property
    def ternary_names(self) -> Sequence[str]:
        """Names of the parameters whose gradients cross as codes."""

    @property
    def scales(self) -> Mapping[str, Tensor]:
        """The latest shared scales [num_scales] by parameter name."""

    @property
    def snapshots(self) -> Mapping[str, GradientSnapshot]:
        """The latest snapshots of the parameters that were asked for."""

    def request_snapshots(self, names: Iterable[str]) -> None:
        """Take snapshots of these parameters' gradients in the following steps."""


def is_averaging(optimizer: object) -> bool:
    """Return whether an optimizer averages already."""
    return hasattr(optimizer, "compression_state_dict")

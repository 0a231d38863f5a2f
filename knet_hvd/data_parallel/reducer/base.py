"""What a reducer does for an optimizer; by itself nothing, as one rank needs none."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import Tensor

from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot


class Reducer:
    """Leave gradients as they are: on one rank, or on ranks outside the process set.

    ``GradientReducer`` overrides everything.
    """

    @property
    def parameters(self) -> Collection[Tensor]:
        """Parameters whose gradients ``mark_ready`` has to hear of."""
        return ()

    def manages(self, parameter: Tensor) -> bool:
        """Return whether a gradient of this parameter is averaged where it has to be."""
        return True

    @property
    def is_busy(self) -> bool:
        """Whether operations of this step were started and not yet finished."""
        return False

    @property
    def sparse(self) -> Collection[Tensor]:
        """Parameters whose gradients are sparse on any rank; known after the first step."""
        return ()

    def may_stay_sparse(self, parameter: Tensor) -> bool:
        """Note a sparse gradient of this rank; return whether it can cross as one."""
        return True

    def mark_ready(self, parameter: Tensor) -> None:
        """Note that a gradient is complete."""

    def poll(self) -> bool:
        """Continue without waiting; return whether ``finish`` would not wait."""
        return True

    def finish(self) -> None:
        """Wait until every parameter has its averaged gradient; ends the step."""

    def reset(self) -> None:
        """Forget which gradients have arrived in this step."""

    def state_dict(self) -> dict[str, Any]:
        """Return step and residuals, what this rank keeps between steps."""
        return {"step": 0, "residuals": {}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned on this rank."""

    def request_snapshots(self, names: Iterable[str]) -> None:
        """Take snapshots of these parameters' gradients in the following steps."""

    @property
    def snapshots(self) -> dict[str, GradientSnapshot]:
        """The latest snapshots by parameter name."""
        return {}

    @property
    def scales(self) -> dict[str, Tensor]:
        """The latest shared scales [num_scales] by parameter name."""
        return {}

    @property
    def ternary_names(self) -> list[str]:
        """Names of the parameters whose gradients cross as codes."""
        return []

    def wire_bytes(self) -> float:
        """Return the bytes that this rank sends in a step, by formula."""
        return 0.0

    def uncompressed_wire_bytes(self) -> float:
        """Return the bytes that Horovod would send in the gradients' own dtypes."""
        return 0.0

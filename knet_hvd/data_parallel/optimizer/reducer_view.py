"""What a script may read of an optimizer's reducer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from knet_hvd.data_parallel.optimizer.averaging import WireBytes
from knet_hvd.data_parallel.reducer.base import Reducer
from knet_hvd.data_parallel.reducer.snapshots import GradientSnapshot


class ReducerView(torch.optim.Optimizer):
    """Give the reducer's state, scales, snapshots and bytes to the outside."""

    _reducer: Reducer

    def compression_state_dict(self) -> dict[str, Any]:
        """Return the compressor's state on this rank: step and residuals."""
        return self._reducer.state_dict()

    def load_compression_state_dict(self, state: dict[str, Any]) -> None:
        """Load what ``compression_state_dict`` returned on this rank."""
        self._reducer.load_state_dict(state)

    def request_snapshots(self, names: Iterable[str]) -> None:
        """Take snapshots of these parameters' gradients in the following steps."""
        self._reducer.request_snapshots(names)

    @property
    def snapshots(self) -> dict[str, GradientSnapshot]:
        """The latest snapshots of the parameters that were asked for."""
        return self._reducer.snapshots

    @property
    def scales(self) -> dict[str, Tensor]:
        """The latest shared scales [num_scales] of each ternary parameter."""
        return self._reducer.scales

    @property
    def ternary_names(self) -> list[str]:
        """Names of the parameters whose gradients cross as codes."""
        return self._reducer.ternary_names

    @property
    def wire_bytes(self) -> WireBytes:
        """What this rank sends in a step, by formula, headers not counted."""
        return WireBytes(self._reducer.wire_bytes(), self._reducer.uncompressed_wire_bytes())

"""The settings of links between stages, which a job reads before it imports torch and MPI."""

from dataclasses import dataclass
from typing import Literal

from knet_hvd.comm import Encoding


@dataclass(frozen=True, kw_only=True, slots=True)
class LinkSettings:
    """Say how tensors cross between stages.

    Attributes:
        activation_encodings: How activations cross: one for all cuts, or one for each.
        gradient_encodings: How gradients cross: one for all cuts, or one for each.
        credits: Frames that each end of a link holds at least.
        mpi_progress: Whether a thread keeps messages moving while a rank computes; auto:
            where a neighbor is on another host.
    """

    activation_encodings: tuple[Encoding, ...] = ("fp32",)
    gradient_encodings: tuple[Encoding, ...] = ("fp32",)
    credits: int = 4
    mpi_progress: Literal["auto", "on", "off"] = "auto"

    def __post_init__(self) -> None:
        if self.credits < 1:
            raise ValueError(f"credits: expected at least 1, got {self.credits}")

"""Configuration of a data-parallel training job. Imports nothing heavy: see ``cli``."""

from dataclasses import dataclass, field
from typing import Literal

from knet_hvd.training.config import RUN_ONLY, JobConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig(JobConfig):
    """Train a network on all ranks with float or ternary gradients.

    Raises:
        TypeError: If a setting is of another type than its field.
        ValueError: If a setting is out of range.
    """

    # Only the sum over all ranks counts: see ``resume``.
    batch_size: int = field(default=32, metadata=RUN_ONLY)
    """Samples per step and rank."""

    compression: Literal["none", "fp16", "ternary", "auto"] = "ternary"
    """How gradients cross the network; none and fp16 are Horovod's own. auto: times all
    for some seconds and takes the fastest, none unless another is 1.1 times faster."""

    # Not a Literal: the list of exchanges imports torch, and wrong flags are refused before.
    exchange: str = "auto"
    """How ternary codes cross it. auto: allgather or alltoall, whichever sends less;
    allreduce: Horovod's own optimizer with Compression.ternary."""

    elastic: bool = field(default=False, metadata=RUN_ONLY)
    """Continue when workers die, and take in new ones; started by ``python -m knet_hvd
    elastic``. The learning rate stays, and so do the samples per step and rank."""

    commit_every: int = field(default=20, metadata=RUN_ONLY)
    """With elastic: steps between states in memory, to which workers go back when one
    of them is lost, and after which new ones may join."""

    histogram_every: int = field(default=200, metadata=RUN_ONLY)
    """Steps between gradient histograms in TensorBoard; 0 for none."""

    histogram_layers: tuple[str, ...] = field(default=(), metadata=RUN_ONLY)
    """Parameters to draw; the first and the last ternary one if empty."""

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        self.expect_at_least_1("commit_every")
        if self.compression == "auto" and self.exchange == "allreduce":
            raise ValueError(
                "compression auto chooses among exchanges of its own; got "
                "exchange allreduce, which is Horovod's optimizer"
            )
        for name in ("checkpoint_dir", "profile") if self.elastic else ():
            if getattr(self, name) is not None:
                raise ValueError(
                    f"elastic and {name} do not go together: an elastic job keeps its "
                    "state in the memory of its workers, and their number changes; "
                    "leave out one of them"
                )

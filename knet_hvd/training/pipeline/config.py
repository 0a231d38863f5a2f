"""Configuration of a pipeline training job."""

from dataclasses import dataclass, field
from typing import Literal

from knet_hvd.comm.encoding_names import Float32Encoding
from knet_hvd.comm.throttle import parse_slow_rank
from knet_hvd.pipeline.decouplers import Decoupler, Local, Use
from knet_hvd.pipeline.link_settings import LinkSettings
from knet_hvd.training.config import RUN_ONLY, JobConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig(JobConfig):
    """Train a network that is cut into stages, one on each rank.

    Raises:
        ValueError: If a setting is out of range.
    """

    model: str = "mnist4"
    """mnist4, mnist8, lenet, mlp, cifarnet, alexnet, vgg16, resnet20 or transformer. Your own:
    package.module:function, which returns an nn.Sequential of blocks."""

    stages: int | None = None
    """Stages of the pipeline; if not given, as many as the ranks hold: their number by
    `replicas`."""

    replicas: int = 1
    """Replicas of each stage: the pipeline is there so many times, and each trains on
    its own share of every batch. There have to be stages * replicas ranks."""

    compression: Literal["none", "fp16", "ternary"] = "ternary"
    """How gradients cross between replicas; none and fp16 are Horovod's own."""

    cuts: tuple[int, ...] = field(default=(), metadata=RUN_ONLY)
    """Blocks before each cut, such as `1 3`; see placement if empty."""

    cut_between: Literal["blocks", "layers"] = "blocks"
    """Where cuts may be. layers: within blocks too, as between a convolution and its
    normalization; every layer then counts as a block."""

    placement: Literal["equal", "measured"] = field(default="equal", metadata=RUN_ONLY)
    """Where to cut if no cuts are given. equal: stages of equally many blocks, on ranks
    in their order; measured: so that the slowest stage or link is as fast as can be."""

    memory_limits_mb: tuple[float, ...] = field(default=(), metadata=RUN_ONLY)
    """Memory of each rank for `measured`, in millions of bytes; 0 for no limit."""

    weights_layout: Literal["contiguous", "channels_last"] = "contiguous"
    """How convolutions' weights lie in memory; channels_last: as images do, so that no
    pass has to copy them, for a lower peak."""

    release_above_mb: float | None = field(default=None, metadata=RUN_ONLY)
    """Give freed memory back to the system at once instead, in blocks of this many
    millions of bytes and more, such as 1: a lower peak that costs time. Linux only."""

    slow_rank: str | None = field(default=None, metadata=RUN_ONLY)
    """Slow a rank down, for tests: `1:3.0` has rank 1 take three times as long."""

    decoupler: Decoupler = field(default_factory=Local)
    """Where a stage's gradient comes from: `--decoupler` with a name, and its settings."""

    microbatches: int = 1
    """Parts of a batch that follow each other through the stages, for backprop and
    delayed: with as many as there are stages, late gradients are one update old."""

    activation_encodings: tuple[Float32Encoding, ...] = ("fp32",)
    """How activations cross: one for all cuts, or one for each."""

    gradient_encodings: tuple[Float32Encoding, ...] = ("fp32",)
    """How gradients cross: one for all cuts, or one for each."""

    credits: int = field(default=4, metadata=RUN_ONLY)
    """Frames that each end of a link holds at least."""

    mpi_progress: Literal["auto", "on", "off"] = field(default="auto", metadata=RUN_ONLY)
    """Whether a thread keeps messages moving while a rank computes; auto: where a
    neighbor is on another host."""

    timeout_s: float = field(default=25.0, metadata=RUN_ONLY)
    """Longest wait for a neighboring rank before it is taken for lost."""

    start_timeout_s: float = field(default=300.0, metadata=RUN_ONLY)
    """The same until training begins: ranks may read programs and data from a slow disk."""

    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    """momentum is SGD with momentum 0.9."""

    learning_rate: float = 0.001
    """Learning rate at the start."""

    batch_size: int = 64
    """Samples per step and replica: with replicas a step takes replicas * batch_size."""

    deterministic: bool = False
    """Take gradients that come back after exactly as many steps as they may take, not as
    soon as they are there (with replicas always so): the same command then gives the same
    weights, bit for bit."""

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        for name in ("microbatches", "credits", "stages", "replicas"):
            self.expect_at_least_1(name)
        if self.release_above_mb is not None and not self.release_above_mb > 0:
            raise ValueError(f"release_above_mb: expected > 0, got {self.release_above_mb}")
        parse_slow_rank(self.slow_rank)
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"microbatches: expected a divisor of batch_size {self.batch_size}, "
                f"got {self.microbatches}"
            )
        self.decoupler.check(
            Use(
                num_microbatches=self.microbatches,
                num_replicas=self.replicas,
                saves_checkpoints=self.checkpoint_dir is not None,
                optimizer_has_averages=self.optimizer != "sgd",
            )
        )

    def defaults(self) -> "PipelineConfig":
        """Return the job's defaults, with this decoupler's own."""
        return PipelineConfig(decoupler=type(self.decoupler)())

    @property
    def layerwise(self) -> bool:
        """Return whether every layer counts as a block."""
        return self.cut_between == "layers"

    @property
    def microbatch_size(self) -> int:
        """Return the samples of a microbatch, which is what crosses in a frame."""
        return self.batch_size // self.microbatches

    @property
    def links(self) -> LinkSettings:
        """Return how tensors cross between stages."""
        return LinkSettings(
            activation_encodings=self.activation_encodings,
            gradient_encodings=self.gradient_encodings,
            credits=self.credits,
            mpi_progress=self.mpi_progress,
        )

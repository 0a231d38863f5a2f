"""Configuration of a pipeline training job."""

from dataclasses import dataclass, field
from typing import Literal

from knet_hvd.comm import Encoding
from knet_hvd.comm.throttle import parse_slow_rank
from knet_hvd.pipeline.decouplers.local_loss import AuxiliaryConfig
from knet_hvd.pipeline.decouplers.synthesizer import SynthesizerConfig
from knet_hvd.pipeline.setting_checks import check_decoupler_settings
from knet_hvd.training.config import RUN_ONLY, JobConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig(JobConfig):
    """Train an image classifier that is cut into stages, one on each rank.

    Raises:
        ValueError: If a setting is out of range.
    """

    model: str = "mnist4"
    """mnist4, mnist8, vgg16, lenet, mlp, cifarnet or alexnet."""

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

    decoupler: Literal["backprop", "synthetic", "conditioned", "local", "delayed"] = "local"
    """Where a stage's gradient comes from. backprop: from the next stage, locked;
    synthetic: from a synthesizer (DNI); conditioned: from one that sees the labels
    (cDNI); local: from a loss of its own (DGL); delayed: from the next stage, some
    steps later (features replay, DDG)."""

    schedule: Literal["sequential", "1f1b"] = "1f1b"
    """Order of the microbatches of backprop."""

    microbatches: int = 1
    """Parts of a batch that follow each other through the stages, for backprop and
    delayed: with as many as there are stages, late gradients are one update old."""

    max_delay: int | None = None
    """Most steps between a batch and the gradient that comes back for it, microbatches
    counted one by one. Not given: 4 for synthesizers; for delayed gradients one for
    each later stage, and one."""

    recompute: bool = True
    """For delayed: keep inputs and run forward on them again (features replay). no:
    keep each batch's graph and weights (DDG), faster and in more memory."""

    predict_weights: bool = False
    """For delayed: run forward on the weights that are to be expected when the gradient
    comes back (PipeOptim): late gradients mislead far less, for one pass over them."""

    synthesizer: SynthesizerConfig = field(default_factory=SynthesizerConfig)
    """Settings of synthetic and conditioned."""

    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    """Settings of local."""

    activation_encodings: tuple[Encoding, ...] = ("fp32",)
    """How activations cross: one for all cuts, or one for each."""

    gradient_encodings: tuple[Encoding, ...] = ("fp32",)
    """How gradients cross: one for all cuts, or one for each."""

    credits: int = field(default=4, metadata=RUN_ONLY)
    """Frames that each end of a link holds at least."""

    mpi_progress: Literal["auto", "on", "off"] = field(default="auto", metadata=RUN_ONLY)
    """Whether a thread keeps messages moving while a rank computes; auto: where a
    neighbor is on another host."""

    timeout_s: float = field(default=25.0, metadata=RUN_ONLY)
    """Longest wait for a neighboring rank before it is taken for lost."""

    optimizer: Literal["sgd", "momentum", "adam"] = "adam"
    """momentum is SGD with momentum 0.9."""

    learning_rate: float = 0.001
    """Learning rate at the start."""

    batch_size: int = 64
    """Images per step and replica: with replicas a step takes replicas * batch_size."""

    deterministic: bool = False
    """Take gradients that come back after exactly `max_delay` steps, not as soon as
    they are there (with replicas always so): the same command then gives the same
    weights, bit for bit."""

    def __post_init__(self) -> None:
        JobConfig.__post_init__(self)
        for name in ("microbatches", "credits", "stages", "replicas", "max_delay"):
            self.expect_at_least_1(name)
        if self.release_above_mb is not None and not self.release_above_mb > 0:
            raise ValueError(f"release_above_mb: expected > 0, got {self.release_above_mb}")
        parse_slow_rank(self.slow_rank)
        if self.batch_size % self.microbatches:
            raise ValueError(
                f"microbatches: expected a divisor of batch_size {self.batch_size}, "
                f"got {self.microbatches}"
            )
        check_decoupler_settings(self)

    @property
    def layerwise(self) -> bool:
        """Return whether every layer counts as a block."""
        return self.cut_between == "layers"

    @property
    def microbatch_size(self) -> int:
        """Return the images of a microbatch, which is what crosses in a frame."""
        return self.batch_size // self.microbatches

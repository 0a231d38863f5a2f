"""Configuration of a data-parallel training job."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from knet_hvd.checkpoint import CheckpointConfig
from knet_hvd.compression import TernaryConfig
from knet_hvd.data_parallel.exchanges.registry import EXCHANGES

if TYPE_CHECKING:
    JobExchange = str
else:  # the command line lists the names
    JobExchange = Literal[("auto", *EXCHANGES, "allreduce")]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig(CheckpointConfig):
    """Train an image classifier on all ranks with float or ternary gradients.

    Raises:
        ValueError: If a setting is out of range.
    """

    data: Literal["digits", "mnist", "cifar10"] = "digits"
    """Data set: digits is embedded in scikit-learn and needs no file."""

    data_dir: Path | None = None
    """Folder of the official MNIST (IDX) or CIFAR-10 (binary) files."""

    model: str = "lenet"
    """lenet, mlp, cifarnet, alexnet, vgg16, mnist4 or mnist8."""

    width: float = 1.0
    """Width factor of the model's layers."""

    compression: Literal["none", "fp16", "ternary", "auto"] = "ternary"
    """How gradients cross the network; none and fp16 are Horovod's own. auto: times all
    for some seconds and takes the fastest, none unless another is 1.1 times faster."""

    exchange: JobExchange = "auto"
    """How ternary codes cross it. auto: allgather or alltoall, whichever sends less;
    allreduce: Horovod's own optimizer with Compression.ternary."""

    ternary: TernaryConfig = field(default_factory=TernaryConfig)
    """Settings of the ternary codec."""

    optimizer: Literal["sgd", "momentum", "adam"] = "momentum"
    """momentum is SGD with momentum 0.9."""

    epochs: int = 10
    """Passes over the training data."""

    max_steps: int | None = None
    """Stop after this many steps, if that is earlier."""

    batch_size: int = 32
    """Images a rank a step."""

    learning_rate: float = 0.01
    """Learning rate at the start."""

    schedule: Literal["constant", "polynomial"] = "constant"
    """polynomial: falls to 0 with power 0.5, as in the TernGrad paper."""

    weight_decay: float = 0.0
    """L2 penalty of the optimizer."""

    average_decay: float = 0.0
    """Evaluate an exponential moving average of the parameters with this decay
    (the paper: 0.9999); 0 evaluates the parameters themselves."""

    inputs: Literal["standardized", "unit"] = "standardized"
    """standardized: mean 0 and deviation 1 a channel; unit: 0 to 1, as in the paper."""

    augment: bool = False
    """Random crops and flips (meant for cifar10)."""

    crop_size: int | None = None
    """Side of the square that the model sees of an image, in pixels: at random with
    augment, else the middle. The paper's CifarNet sees 24 of 32."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast of forward and backward; parameters, gradients and what crosses
    the network stay as they are. Faster on CPUs with AMX or AVX-512 BF16."""

    timeout_s: float = 600.0
    """Longest time without progress, a step or an evaluation, before the job is taken
    to hang, and ended."""

    seed: int = 0
    """Seed of the initial parameters, the order of images, dropout and codes."""

    logdir: Path | None = None
    """Folder for TensorBoard; none is written without it."""

    summary: Path | None = None
    """JSON file for the results."""

    profile: Path | None = None
    """Folder for a trace of steps 10 to 14 on each rank, to open in ui.perfetto.dev."""

    elastic: bool = False
    """Go on when workers die, and take in new ones; started by ``python -m knet_hvd
    elastic``. The learning rate stays, and so do the images a rank a step."""

    commit_every: int = 20
    """With elastic: steps between states in memory, to which workers go back when one
    of them is lost, and after which new ones may join."""

    log_every: int = 20
    """Steps between scalars in TensorBoard."""

    histogram_every: int = 200
    """Steps between gradient histograms in TensorBoard; 0 for none."""

    histogram_layers: tuple[str, ...] = ()
    """Parameters to draw; the first and the last ternary one if empty."""

    def __post_init__(self) -> None:
        CheckpointConfig.__post_init__(self)
        for name in ("epochs", "batch_size", "log_every", "commit_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
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
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max_steps: expected at least 1, got {self.max_steps}")
        if self.crop_size is not None and self.crop_size < 1:
            raise ValueError(f"crop_size: expected at least 1, got {self.crop_size}")
        for name in ("learning_rate", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected > 0, got {getattr(self, name)}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay: expected 0 to 1, got {self.average_decay}")

"""The settings that both jobs have. Imports nothing heavy: see ``cli``."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from knet_hvd.compression.config import TernaryConfig
from knet_hvd.data.registry import check_dataset
from knet_hvd.data.settings import ImageSettings
from knet_hvd.flat_config import Scalar, to_flat_dict
from knet_hvd.models.registry import check_model
from knet_hvd.training.field_types import check_types

RUN_ONLY = {"affects_step": False}
"""Metadata of settings that do not change what a step computes: a run that continues from a
checkpoint may have others."""

_PLACES = frozenset(("data_dir", "logdir", "summary", "profile", "checkpoint_dir"))


@dataclass(frozen=True, kw_only=True, slots=True)
class JobConfig:
    """Train a network.

    Raises:
        TypeError: If a setting is of another type than its field.
        ValueError: If a setting is out of range.
    """

    data: str = "digits"
    """digits comes with scikit-learn, text with Python (characters for the transformer); mnist
    and cifar10 are read from files. Your own: package.module:function, which returns a
    knet_hvd.data.Dataset (docs/own_network_and_data.md)."""

    data_dir: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder of the official MNIST (IDX) or CIFAR-10 (binary) files; for text, a text file or a
    folder of .txt files; a function of your own gets it as data_dir."""

    model: str = "lenet"
    """A built-in network, such as lenet or vgg16; an unknown name lists all. Your own:
    package.module:function, which returns an nn.Sequential of blocks."""

    width: float = 1.0
    """Width factor of the model's layers."""

    epochs: int = field(default=10, metadata=RUN_ONLY)
    """Passes over the training data."""

    max_steps: int | None = field(default=None, metadata=RUN_ONLY)
    """Stop after this many steps, if that is earlier."""

    batch_size: int = 32
    """Samples per step and rank (in a pipeline: per step and replica)."""

    optimizer: Literal["sgd", "momentum", "adam"] = "momentum"
    """momentum is SGD with momentum 0.9."""

    learning_rate: float = 0.01
    """Learning rate at the start."""

    learning_rate_schedule: Literal["constant", "polynomial", "cosine"] = "constant"
    """polynomial: falls to 0 with power 0.5, as in the TernGrad paper; cosine: falls to 0
    along half a cosine."""

    weight_decay: float = 0.0
    """L2 penalty of the optimizer."""

    seed: int = 0
    """Seed of the initial parameters, the order of samples, dropout and codes."""

    logdir: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder for TensorBoard (in a pipeline: one run per stage); none is written without it."""

    summary: Path | None = field(default=None, metadata=RUN_ONLY)
    """JSON file for the results."""

    log_every: int = field(default=20, metadata=RUN_ONLY)
    """Steps between scalars in TensorBoard."""

    augment: bool = False
    """Random crops and flips (meant for cifar10)."""

    crop_size: int | None = None
    """Side of the square that the model sees of an image, in pixels: at random with
    augment, else the middle. The paper's CifarNet sees 24 of 32."""

    inputs: Literal["standardized", "unit"] = "standardized"
    """standardized: mean 0 and deviation 1 a channel; unit: 0 to 1, as in the paper."""

    average_decay: float = 0.0
    """Evaluate an exponential moving average of the parameters with this decay
    (the paper: 0.9999); 0 evaluates the parameters themselves."""

    device: Literal["auto", "cpu", "cuda"] = field(default="auto", metadata=RUN_ONLY)
    """auto: the GPU of the rank's number on its host, the processor where there is no GPU."""

    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast of forward and backward; parameters, gradients and what crosses
    the network stay fp32. Faster on CPUs with AMX or AVX-512 BF16."""

    checkpoint_dir: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder for checkpoints, seen by all ranks; none are written without it. With it,
    SIGUSR1 and SIGTERM make the job save its state and exit with code 75."""

    checkpoint_every: int = field(default=500, metadata=RUN_ONLY)
    """Steps between checkpoints; one more is written at the end."""

    keep_checkpoints: int = field(default=3, metadata=RUN_ONLY)
    """How many of the latest checkpoints stay."""

    resume: Literal["auto", "never", "must"] = field(default="auto", metadata=RUN_ONLY)
    """auto: continue from the latest good checkpoint if there is one; never: the folder
    must be empty; must: a checkpoint must be there."""

    timeout_s: float = field(default=600.0, metadata=RUN_ONLY)
    """Longest time without progress, a step or an evaluation, before the job is taken
    to hang, and ended."""

    profile: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder for a trace of steps 10 to 14 on each rank, to open in ui.perfetto.dev."""

    keep_freed_memory: bool = field(default=True, metadata=RUN_ONLY)
    """Keep freed memory for the next step; no: as the C library sees fit, which gives
    much back to the system and takes it again in every step. Linux only."""

    ternary: TernaryConfig = field(default_factory=TernaryConfig)
    """Settings of the ternary codes of gradients."""

    def __post_init__(self) -> None:
        check_types(self)
        check_dataset(self.data)
        check_model(self.model)
        for name in ("epochs", "batch_size", "log_every", "max_steps", "crop_size"):
            self.expect_at_least_1(name)
        for name in ("checkpoint_every", "keep_checkpoints"):
            self.expect_at_least_1(name)
        for name in ("learning_rate", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected > 0, got {getattr(self, name)}")
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay: expected 0 to 1, got {self.average_decay}")
        if self.checkpoint_dir is None and self.resume == "must":
            raise ValueError("resume must: expected a checkpoint_dir to resume from")

    def expect_at_least_1(self, name: str) -> None:
        """Raise unless a number is at least 1 or None.

        Raises:
            ValueError: Names the setting.
        """
        value = getattr(self, name)
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")

    @property
    def image_settings(self) -> ImageSettings:
        """Return what the model sees of images."""
        return ImageSettings(augment=self.augment, crop_size=self.crop_size, inputs=self.inputs)

    def facts(self) -> dict[str, Scalar]:
        """Return what has to be the same on every rank: all but what its own host has."""
        own = replace(self, data_dir=None, logdir=None, summary=None, profile=None, device="auto")
        return to_flat_dict(own)

    def defaults(self) -> "JobConfig":
        """Return the configuration of the same job with all settings at their defaults."""
        return type(self)()

    def not_default(self) -> dict[str, Scalar]:
        """Return the settings that differ from the defaults, flat."""
        defaults = to_flat_dict(self.defaults())
        return {
            name: value for name, value in to_flat_dict(self).items() if defaults.get(name) != value
        }

    def hyperparameters(self, **named: Scalar) -> dict[str, Scalar]:
        """Return a run's row of a table of runs: what names it, and what is not default.

        Args:
            named: Choices and sizes that tell runs apart, whether default or not.
        """
        own = {"model": self.model, "data": self.data, **named, **self.not_default()}
        return {name: value for name, value in own.items() if name not in _PLACES}

    def table(self) -> str:
        """Return all settings as a table in Markdown."""
        rows = [f"| {name} | {value} |" for name, value in to_flat_dict(self).items()]
        return "\n".join(["| setting | value |", "|-|-|", *rows])


def may_differ(config: type[JobConfig]) -> frozenset[str]:
    """Return the settings that a run may change when it continues from a checkpoint."""
    names: list[Any] = [
        each.name for each in fields(config) if not each.metadata.get("affects_step", True)
    ]
    return frozenset(names)

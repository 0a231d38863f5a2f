"""Data sets: what a network is trained and tested on, and how its outputs are judged."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from knet_hvd.data.settings import ImageSettings

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(output [n, ...], targets [n, ...]) -> the mean over the samples, a scalar."""

Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""(output [n, ...], targets [n, ...]) -> a value of each sample [n]."""

Augment: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
"""(inputs [n, ...], source of all random numbers) -> changed inputs [n, ...]."""


_COMPARED = 100_000
"""Targets of a split that ranks compare: enough to notice another order or another file."""


class Rows(Protocol):
    """Samples by number: a tensor, an array of NumPy, or a file that is mapped into memory."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, indices: Tensor, /) -> Any:
        """Return samples [n, ...] by their numbers int64 [n], as `torch.as_tensor` takes them."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Hold the inputs and the targets of a part of a data set.

    Attributes:
        inputs: A row for each sample.
        targets: The same.

    Raises:
        ValueError: If they do not pair, or there is none.
    """

    inputs: Rows
    targets: Rows

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.targets) > 0:
            raise ValueError(
                "expected as many targets as inputs, and at least one, got "
                f"{len(self.inputs)} inputs and {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.targets)


def cross_entropy(output: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy in nats, over all positions.

    Args:
        output: Logits [n, classes], or [n, t, classes] for sequences.
        targets: int64 [n], or [n, t].
    """
    return functional.cross_entropy(output.flatten(0, -2), targets.flatten())


def accuracy(output: Tensor, targets: Tensor) -> Tensor:
    """Return for each sample whether its largest logit is at the target.

    Args:
        output: Logits [n, classes], or [n, t, classes] for sequences.
        targets: int64 [n], or [n, t].

    Returns:
        float64 [n]: 0 or 1, or the part of the positions for which it is.
    """
    right = output.argmax(-1) == targets
    return right.double().flatten(1).mean(1) if right.dim() > 1 else right.double()


class Dataset:
    """Hold what a network is trained and tested on.

    Attributes:
        train: The training split.
        test: The test split.
        num_classes: Classes of the targets; None if they are no classes.
        loss: What the network is trained for.
        metrics: What is reported of a split beside the loss, by name: the mean over all
            samples.
        augment: What changes the inputs of a training batch; None for nothing.
    """

    def __init__(
        self,
        train: tuple[Rows, Rows] | Split,
        test: tuple[Rows, Rows] | Split,
        *,
        num_classes: int | None = None,
        loss: Loss = cross_entropy,
        metrics: Mapping[str, Metric] | None = None,
        prepare: Callable[[Tensor], Tensor] | None = None,
        augment: Augment | None = None,
    ) -> None:
        """Take the splits and what goes with them.

        Args:
            train: Inputs and targets.
            test: Inputs and targets.
            num_classes: Classes of the targets int64 [n, ...], 0 to one less.
            loss: Cross entropy if not given.
            metrics: The accuracy if not given.
            prepare: Turns a batch of inputs, in training and in tests, into what the
                network takes: for instance bytes into floats. Nothing if not given.
            augment: Changes the inputs of a training batch, before `prepare`.

        Raises:
            ValueError: If inputs and targets do not pair, or a target is no class.
        """
        self.train, self.test = _split("train", train), _split("test", test)
        self.num_classes = num_classes
        self.loss = loss
        self.metrics = dict({"accuracy": accuracy} if metrics is None else metrics)
        self.augment: Augment | None = augment
        self._prepare = prepare
        if num_classes is not None:
            for name, split in (("train", self.train), ("test", self.test)):
                _check_classes(name, split.targets, num_classes)

    def configure(self, settings: ImageSettings) -> None:
        """Take the settings of images: only an `ImageDataset` has any.

        Raises:
            ValueError: If a setting is not the default.
        """
        for name, value in asdict(settings).items():
            if value != getattr(ImageSettings(), name):
                raise ValueError(
                    f"{name}: expected no such setting with this data set, which is no "
                    f"ImageDataset, got {value}"
                )

    def prepare(self, inputs: Tensor) -> Tensor:
        """Return a batch as the network takes it."""
        return inputs if self._prepare is None else self._prepare(inputs)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Return the shape of a sample as the network takes it."""
        return tuple(self.example(1).shape[1:])

    def example(self, num_samples: int) -> Tensor:
        """Return a batch as the network takes it, of the first training samples."""
        indices = torch.arange(num_samples) % len(self.train)
        return self.prepare(torch.as_tensor(self.train.inputs[indices]))

    def facts(self) -> dict[str, object]:
        """Return what has to be the same on all ranks, each of which loads its own copy."""
        facts: dict[str, object] = {"number of classes": self.num_classes}
        for name, split in (("training", self.train), ("test", self.test)):
            facts[f"{name} samples"] = len(split)
            facts[f"first {_COMPARED:,} {name} targets"] = _digest(split.targets)
        return facts


def _split(name: str, pair: tuple[Rows, Rows] | Split) -> Split:
    """Return a split of a pair; an error names it."""
    try:
        return pair if isinstance(pair, Split) else Split(*pair)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _digest(targets: Rows) -> str:
    """Return a checksum of the first targets."""
    first = torch.as_tensor(targets[torch.arange(min(_COMPARED, len(targets)))])
    content = first.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _check_classes(name: str, targets: Rows, num_classes: int) -> None:
    """Raise unless targets are classes."""
    classes = torch.as_tensor(targets[torch.arange(len(targets))])
    if classes.dtype != torch.int64:
        raise TypeError(f"{name}: expected targets of torch.int64, got {classes.dtype}")
    low, high = int(classes.min()), int(classes.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{name}: expected targets 0 to {num_classes - 1}, got {low} to {high}")

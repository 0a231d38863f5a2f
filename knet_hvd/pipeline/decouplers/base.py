"""The interface of decouplers.

A decoupler is one published method with its settings: a frozen dataclass that knows its
name, says what it can do, and builds what a stage needs. Adding one takes a file with
such a class, and a line in the package's list.

A job reads its flags before it imports torch, so these files import it within ``build``
only, or not at all.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from knet_hvd.pipeline.gradient_source import GradientSource
from knet_hvd.pipeline.runners.schedules import Action

if TYPE_CHECKING:
    from knet_hvd.pipeline.loss_head import Loss

SLACK_STEPS = 1
"""Steps that a late gradient may take beyond one for each later stage. Stages that take
the same time need none of it, if each goes forward and backward in turn: that is the
1F1B order of PipeDream (SOSP 2019, section 3.2). One lets a stage be slow for once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Use:
    """What a pipeline asks of its decoupler.

    Attributes:
        num_microbatches: Parts of a batch.
        num_replicas: Replicas of each stage.
        saves_checkpoints: Whether the run can be resumed.
        optimizer_has_averages: Whether the stages' optimizer keeps an average of the
            gradients, as Adam and momentum do.
    """

    num_microbatches: int = 1
    num_replicas: int = 1
    saves_checkpoints: bool = False
    optimizer_has_averages: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoupler(ABC):
    """Say where a stage's gradient comes from.

    Attributes:
        name: On the command line.
        gradients_return: Whether the next stage sends gradients back.
        locked: Whether a step may only begin when the last one is over.
        takes_microbatches: Whether a step may be several microbatches.
        takes_tuples: Whether a stage may return several tensors.
    """

    name: ClassVar[str]
    gradients_return: ClassVar[bool] = True
    locked: ClassVar[bool] = False
    takes_microbatches: ClassVar[bool] = False
    takes_tuples: ClassVar[bool] = False

    @abstractmethod
    def build(
        self, out_shape: tuple[int, ...], num_classes: int | None, loss: "Loss | None" = None
    ) -> GradientSource:
        """Return what gives a stage its gradient, for a stage that is not the last.

        Args:
            out_shape: The stage's output, without the batch.
            num_classes: Classes of the targets; None if they are no classes.
            loss: What the network is trained for.

        Raises:
            ValueError: If this decoupler cannot handle such outputs or targets.
        """

    def check(self, use: Use) -> None:
        """Raise unless this decoupler can do what a pipeline asks for.

        Raises:
            ValueError: Names the setting.
        """
        if use.num_microbatches > 1 and not self.takes_microbatches:
            raise ValueError(
                f"microbatches: expected 1 with {self.name}, whose stages overlap without "
                f"them, got {use.num_microbatches}"
            )

    def delay_limit(self, num_later_stages: int) -> int:
        """Return the most microbatches between one and the gradient that returns for it."""
        return num_later_stages + SLACK_STEPS

    def locked_schedule(
        self, stage: int, num_stages: int, num_microbatches: int
    ) -> list[Action] | None:
        """Return the order of a stage's passes in a step; None if stages do not wait."""
        return None

    @property
    def replays(self) -> bool:
        """Return whether stages but the last run forward twice."""
        return False


def check_dimensions(shape: tuple[int, ...], name: str) -> None:
    """Raise unless layers that are built in can be made for an activation.

    Args:
        shape: The activation's, without the batch.
        name: Of the layers.

    Raises:
        ValueError: If it has another number of dimensions than one to three.
    """
    if len(shape) not in (1, 2, 3):
        raise ValueError(
            f"{name}: expected an output of [features], [t, features] or [c, h, w] for "
            f"each sample, got {list(shape)}"
        )


def require_classes(name: str, num_classes: int | None) -> int:
    """Return the number of classes.

    Args:
        name: Of the decoupler that needs it.
        num_classes: Classes of the targets, if any.

    Raises:
        ValueError: If there are none.
    """
    if num_classes is None or num_classes < 1:
        raise ValueError(f"{name}: needs targets that are classes, got num_classes {num_classes}")
    return num_classes

"""The learning rate over a run."""

import math
from collections.abc import Iterable
from typing import Any, Literal

Schedule = Literal["constant", "polynomial", "cosine"]


def set_learning_rate(
    groups: Iterable[dict[str, Any]], schedule: Schedule, start: float, remaining: float
) -> None:
    """Set the learning rate of an optimizer's parameter groups for a step.

    Args:
        groups: ``param_groups`` of the optimizer.
        schedule: constant leaves them as they are; polynomial: power 0.5, as in the
            TernGrad paper; cosine: half a cosine (SGDR, arXiv 1608.03983, without restarts).
        start: The learning rate at the start.
        remaining: The part of the run that is left, 1 to 0.
    """
    if schedule == "constant":
        return
    if schedule == "polynomial":
        factor = remaining**0.5
    else:
        factor = 0.5 * (1 + math.cos(math.pi * (1 - remaining)))
    for group in groups:
        group["lr"] = start * factor

"""The order in which a stage of locked backpropagation takes its microbatches.

`one_forward_one_backward` is the schedule of PipeDream with a flush after each batch
(Narayanan et al., "PipeDream", SOSP 2019; "Memory-Efficient Pipeline-Parallel DNN
Training", ICML 2021, PipeDream-Flush): a stage runs ahead only as far as there are
stages after it, so that it holds that many activations at most.
"""

from typing import Literal, NamedTuple


class Action(NamedTuple):
    """One pass of a stage over one microbatch."""

    kind: Literal["forward", "backward"]
    microbatch: int


def sequential(num_microbatches: int) -> list[Action]:
    """Return the passes of a stage if each microbatch waits for the one before.

    Args:
        num_microbatches: Parts of a batch.
    """
    return [
        Action(kind, microbatch)
        for microbatch in range(num_microbatches)
        for kind in ("forward", "backward")
    ]


def one_forward_one_backward(stage: int, num_stages: int, num_microbatches: int) -> list[Action]:
    """Return the passes of a stage in the 1F1B schedule.

    Args:
        stage: The stage, from 0.
        num_stages: All stages.
        num_microbatches: Parts of a batch.
    """
    num_ahead = min(num_stages - stage - 1, num_microbatches)
    actions = [Action("forward", i) for i in range(num_ahead)]
    for microbatch in range(num_ahead, num_microbatches):
        actions.append(Action("forward", microbatch))
        actions.append(Action("backward", microbatch - num_ahead))
    remaining = range(num_microbatches - num_ahead, num_microbatches)
    return actions + [Action("backward", i) for i in remaining]

"""Schedules of locked backpropagation: complete, without deadlock, and bounded."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knet_hvd.pipeline.runners.schedules import Action, one_forward_one_backward, sequential

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 9))


def run_all(schedules: list[list[Action]]) -> int:
    """Run all stages' passes as soon as what they need is there; return the time."""
    last = len(schedules) - 1
    done: set[tuple[int, Action]] = set()
    position, time = [0] * len(schedules), 0
    while any(p < len(s) for p, s in zip(position, schedules, strict=True)):
        ran = []
        for stage, actions in enumerate(schedules):
            if position[stage] == len(actions):
                continue
            action = actions[position[stage]]
            source = stage - 1 if action.kind == "forward" else stage + 1
            own = (stage, Action("forward", action.microbatch))
            given = source in (-1, last + 1) or (source, action) in done
            if given and (action.kind == "forward" or own in done):
                ran.append((stage, action))
        assert ran, f"deadlock at {position}"
        done.update(ran)
        for stage, _ in ran:
            position[stage] += 1
        time += 1
    return time


@given(sizes=SIZES)
def test_all_passes_run_once_and_none_waits_for_ever(sizes: tuple[int, int]) -> None:
    num_stages, num_microbatches = sizes
    schedules = [
        one_forward_one_backward(stage, num_stages, num_microbatches) for stage in range(num_stages)
    ]
    for actions in [*schedules, sequential(num_microbatches)]:
        assert len(set(actions)) == len(actions) == 2 * num_microbatches
    # The best there is: the bubble is one forward and backward for each other stage.
    assert run_all(schedules) == 2 * (num_microbatches + num_stages - 1)
    waiting = run_all([sequential(num_microbatches)] * num_stages)
    assert waiting == 2 * num_microbatches * num_stages


@given(sizes=SIZES)
def test_a_stage_holds_no_more_activations_than_stages_follow(sizes: tuple[int, int]) -> None:
    num_stages, num_microbatches = sizes
    for stage in range(num_stages):
        held = most = 0
        for action in one_forward_one_backward(stage, num_stages, num_microbatches):
            held += 1 if action.kind == "forward" else -1
            most = max(most, held)
        assert most == min(num_stages - stage, num_microbatches)


@pytest.mark.parametrize("num_microbatches", [1, 4])
def test_sequential_takes_one_microbatch_after_the_other(num_microbatches: int) -> None:
    kinds = Counter(action.kind for action in sequential(num_microbatches))
    assert kinds == {"forward": num_microbatches, "backward": num_microbatches}
    assert sequential(2)[:2] == [Action("forward", 0), Action("backward", 0)]

"""Time limits count the time in which a process could look, and no other."""

import os
import subprocess
import sys
import time

import pytest

from knet_hvd.deadline import Deadline, run_within


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def looks_until_passed(deadline: Deadline, clock: Clock, step_s: float) -> int:
    for number in range(1, 10_000):
        clock.now_s += step_s
        if deadline.has_passed():
            return number
    raise AssertionError("it never passed")


@pytest.mark.parametrize(("step_s", "looks"), [(0.25, 81), (0.5, 41), (3600.0, 41)])
def test_a_look_counts_as_at_most_half_a_second(step_s: float, looks: int) -> None:
    clock = Clock()
    assert looks_until_passed(Deadline(20.0, clock), clock, step_s) == looks


def test_a_suspended_process_has_the_rest_of_its_time() -> None:
    clock = Clock()
    deadline = Deadline(20.0, clock)
    for _ in range(40):
        clock.now_s += 0.25
        assert not deadline.has_passed()
    clock.now_s += 3600
    assert not deadline.has_passed()
    assert 37 <= looks_until_passed(deadline, clock, 0.25) <= 39


def test_it_starts_again() -> None:
    clock = Clock()
    deadline = Deadline(2.0, clock)
    clock.now_s += 0.5
    deadline.has_passed()
    deadline.restart()
    assert looks_until_passed(deadline, clock, 0.25) == 9


def test_a_program_that_takes_too_long_is_killed() -> None:
    start = time.monotonic()
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(subprocess.TimeoutExpired, match=r"0\.6 seconds"):
        run_within([sys.executable, "-c", script], 0.6)
    assert time.monotonic() - start < 30


def test_what_a_program_writes_is_returned() -> None:
    text = "import sys; print('x' * 200_000); sys.exit(sys.stdin.read() or 'no input')"
    done = run_within([sys.executable, "-c", text], 60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "x" * 200_000 + "\n", "no input\n")
    with pytest.raises(NotADirectoryError):
        run_within([os.devnull + "/none"], 60)

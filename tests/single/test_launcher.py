import signal
import subprocess
import sys
from pathlib import Path

import pytest

RANK = "from knet_hvd.launcher import end_launcher_later; end_launcher_later(0.5)"


def run_launcher(folder: Path, name: str, seconds: float) -> int:
    """Have a process of that name start a rank that fails, and stay a while."""
    script = f"{sys.executable} -c '{RANK}' || exit 9; sleep {seconds}; exit 7"
    launcher = folder / name
    launcher.symlink_to("/bin/sh")
    line = [str(launcher), "-c", script]
    return subprocess.run(line, timeout=60, check=False).returncode


@pytest.mark.parametrize("name", ["mpirun", "prterun", "prted"])
def test_a_launcher_that_stays_is_killed(tmp_path: Path, name: str) -> None:
    assert run_launcher(tmp_path, name, seconds=50) == -signal.SIGKILL


def test_a_launcher_that_ends_by_itself_keeps_its_exit_code(tmp_path: Path) -> None:
    assert run_launcher(tmp_path, "mpirun", seconds=0) == 7


def test_another_parent_is_left_alone(tmp_path: Path) -> None:
    assert run_launcher(tmp_path, "launcher", seconds=3) == 7


WAITS = """
import itertools, sys
from knet_hvd.launcher import explained_termination
with explained_termination("the reason"):
    print("waiting", flush=True)
    if sys.argv[1] == "long":
        # A call without end, in which no handler and no thread of Python has its turn.
        1 in itertools.repeat(0)
print("done")
"""


def started_rank(how: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WAITS, how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_rank_within_a_call_says_why_it_is_ended() -> None:
    with started_rank("long") as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "waiting\n"
        rank.send_signal(signal.SIGTERM)
        out, err = rank.communicate(timeout=20)
    assert (out, err) == ("", "the reason\n")
    assert rank.returncode != 0


def test_a_rank_that_ends_by_itself_says_nothing() -> None:
    with started_rank("short") as rank:
        out, err = rank.communicate(timeout=20)  # also the explainer's end of stderr
    assert (out, err) == ("waiting\ndone\n", "")
    assert rank.returncode == 0

"""The launcher that started this rank, where it outlives a job that has failed."""

import os
import subprocess
import sys
from pathlib import Path

_OPEN_MPI = ("mpirun", "prterun", "prted")
_WATCH = """
import select, signal, sys
launcher, grace_s = int(sys.argv[1]), float(sys.argv[2])
if not select.select([launcher], [], [], grace_s)[0]:
    signal.pidfd_send_signal(launcher, signal.SIGKILL)
"""


def end_launcher_later(grace_s: float = 25.0) -> None:
    """Have Open MPI's launcher on this host killed if it is still there later.

    mpirun ends all ranks when one has failed, and then waits for its daemons. It never
    hears from one whose host was cut off, nor does that daemon hear from mpirun: both
    stay until TCP gives up, 15 minutes by default. A process of its own watches, so
    that this rank may end. Any other parent than mpirun is left alone.

    Args:
        grace_s: Seconds that the launcher has to end by itself.
    """
    if not hasattr(os, "pidfd_open"):
        return  # not Linux
    parent = os.getppid()
    try:
        launcher = os.pidfd_open(parent)  # unlike its number, it cannot be another's
        name = Path(f"/proc/{parent}/comm").read_text().strip()
    except OSError:
        return  # it has ended, or this kernel has no such thing
    try:
        if name in _OPEN_MPI:
            # No output of ours: the launcher would wait for the end of it.
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _WATCH, str(launcher), str(grace_s)],
                pass_fds=(launcher,), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
    finally:
        os.close(launcher)

"""The launcher that started this rank: what it says, why it ends ranks, and when to end it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

_VARIABLES = {
    "Open MPI": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    "horovodrun": ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_SIZE"),
    "MPICH": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),
    # Only steps have this number of tasks: a batch script is no rank, yet has a SLURM_PROCID.
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE"),
}
_AS_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
ALLOW_ROOT = f"export {_AS_ROOT[0]}=1 {_AS_ROOT[1]}=1"
"""What root writes once in a shell, as in a container; every ``mpirun`` after it starts."""
_OPEN_MPI = ("mpirun", "prterun", "prted")
_WATCH = """
import select, signal, sys
launcher, grace_s = int(sys.argv[1]), float(sys.argv[2])
if not select.select([launcher], [], [], grace_s)[0]:
    signal.pidfd_send_signal(launcher, signal.SIGKILL)
"""
_EXPLAIN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it to all of a step
line, rank = sys.argv[1], int(sys.argv[2])
while number := os.read(0, 1):
    if number[0] == signal.SIGTERM:
        os.write(2, line.encode())
        if os.getppid() == rank:
            os.kill(rank, signal.SIGKILL)
        break
"""


@dataclass(frozen=True, slots=True)
class LaunchedRank:
    """What a launcher says of this process, before MPI or Horovod is imported.

    Attributes:
        rank: This process.
        size: The number of processes.
        local_size: Those on this host; 0 if unknown.
    """

    rank: int
    size: int
    local_size: int

    @classmethod
    def of_environment(cls) -> "LaunchedRank | None":
        """Return what the launcher has set; None without a launcher."""
        for names in _VARIABLES.values():
            rank, size, local_size = (os.environ.get(name, "") for name in names)
            if rank.isdecimal() and size.isdecimal():
                return cls(int(rank), int(size), int(local_size) if local_size.isdecimal() else 0)
        return None

    def describe(self) -> str:
        """Return the number of ranks and where they are."""
        ranks = f"{self.size} rank" + ("s" if self.size > 1 else "")
        if self.local_size == self.size:
            return f"{ranks} on 1 host"
        return f"{ranks}, {self.local_size} of them on this host" if self.local_size else ranks


def root_is_refused() -> bool:
    """Return whether Open MPI's ``mpirun`` would not start for this user, without its flag."""
    return os.geteuid() == 0 and any(os.environ.get(name) != "1" for name in _AS_ROOT)


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
                pass_fds=(launcher,),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
    finally:
        os.close(launcher)


@contextmanager
def explained_termination(message: str) -> Iterator[None]:
    """Say why, and end this process at once, when the launcher sends SIGTERM.

    Open MPI kills half a second after it. On a busy machine that is too short for a
    handler or a thread of Python, which wait for the call that the main thread is in. A
    process of its own prints instead: the part of Python's handler that is C wakes it.
    It ends with this process.

    Args:
        message: A line for the standard error stream.

    Raises:
        ValueError: If this is not the main thread.
    """
    line = message.rstrip("\n") + "\n"
    reader, writer = socket.socketpair()
    with reader:
        explainer = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _EXPLAIN, line, str(os.getpid())],
            stdin=reader.fileno(),
            start_new_session=True,
        )

    def end(number: int, frame: FrameType | None) -> None:
        explainer.wait()
        os._exit(1)

    writer.setblocking(False)
    before = signal.signal(signal.SIGTERM, end)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, before)
        writer.close()
        explainer.wait()

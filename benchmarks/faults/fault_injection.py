"""Faults for running jobs: what is done to them, and how they may end.

Each fault is a function of a running job: it does its harm, and returns what undoes it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

NOTHING_TO_UNDO: Callable[[], None] = lambda: None  # noqa: E731
PAUSE_S = 5.0
SLOWED_S = 2.0
LARGE_DISK = "512m"
NETWORK_RETURNS_S = 3.0
"""Until hosts that did not find each other look again."""


@dataclass
class RunningJob:
    """A job that was started.

    Attributes:
        launcher: mpirun.
        folder: Of all its files; its path is in the command line of every rank.
        start_another: Starts the same command once more, and returns its exit code and
            messages.
        random: Draws what is hit.
    """

    launcher: subprocess.Popen[bytes]
    folder: Path
    start_another: Callable[[], tuple[int, str]]
    random: Random
    notes: list[str] = field(default_factory=list)

    def ranks(self) -> list[int]:
        """Return the processes of the ranks."""
        return rank_pids(self.folder)


def processes() -> Iterator[tuple[int, list[bytes], int]]:
    """Yield number, command line and session of every process that has not ended."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
        except OSError:
            continue  # it has ended
        state, session = fields[0], int(fields[3])
        if state != "Z":
            yield int(entry.name), words, session


def rank_pids(folder: Path) -> list[int]:
    """Return the Python processes whose command line names a folder."""
    return sorted(
        pid
        for pid, words, _ in processes()
        if Path(os.fsdecode(words[0])).name.startswith("python")
        and any(os.fsencode(folder) in word for word in words)
    )


def kill(job: RunningJob) -> Callable[[], None]:
    """Kill a rank, as the kernel does when memory is short."""
    os.kill(job.random.choice(job.ranks()), signal.SIGKILL)
    return NOTHING_TO_UNDO


def kill_node(job: RunningJob) -> Callable[[], None]:
    """Kill everything at once, as a power cut does."""
    for pid in [job.launcher.pid, *job.ranks()]:
        os.kill(pid, signal.SIGKILL)
    return NOTHING_TO_UNDO


def pause(job: RunningJob) -> Callable[[], None]:
    """Stop a rank for some seconds, as a machine does that swaps."""
    pid = job.random.choice(job.ranks())
    os.kill(pid, signal.SIGSTOP)
    time.sleep(PAUSE_S)
    os.kill(pid, signal.SIGCONT)
    return NOTHING_TO_UNDO


def hang(job: RunningJob) -> Callable[[], None]:
    """Stop a rank for good."""
    os.kill(job.random.choice(job.ranks()), signal.SIGSTOP)
    return NOTHING_TO_UNDO


def preempt(job: RunningJob) -> Callable[[], None]:
    """Ask the job to stop, as Slurm's --signal does."""
    job.launcher.send_signal(signal.SIGUSR1)
    return NOTHING_TO_UNDO


def cut_network(job: RunningJob) -> Callable[[], None]:
    """Take a host off the network (of slow_hosts.sh)."""
    port = f"knet-h{job.random.choice([1, 2])}"
    subprocess.run(["ip", "link", "set", port, "down"], check=True)

    def undo() -> None:
        subprocess.run(["ip", "link", "set", port, "up"], check=True)
        time.sleep(NETWORK_RETURNS_S)

    return undo


def fill_disk(job: RunningJob) -> Callable[[], None]:
    """Fill the disk of the checkpoints."""
    filler = job.folder / "disk" / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:  # the job writes as well, so that what is free is not known
            file.write(bytes(65536))
    return filler.unlink


def start_twice(job: RunningJob) -> Callable[[], None]:
    """Start a second job in the folder of the first, which is slowed to be there."""
    pid = job.random.choice(job.ranks())
    with ThreadPoolExecutor(1) as threads:
        second = threads.submit(job.start_another)
        while not second.done():
            os.kill(pid, signal.SIGSTOP)
            wait([second], SLOWED_S)
            os.kill(pid, signal.SIGCONT)
            time.sleep(SLOWED_S / 20)
    code, text = second.result()
    refused = code != 0 and "in use by" in text
    if not refused:
        job.notes.append(f"the second job was not refused ({code}): {text}")
    return NOTHING_TO_UNDO


@dataclass(frozen=True)
class Fault:
    """One kind of fault.

    Attributes:
        inject: Does it.
        ends_with: Exit codes of a job that handles it; None for any but 0.
        explains: What some rank or the launcher says then; one of these.
        on_hosts: Whether the job runs on hosts of slow_hosts.sh.
    """

    inject: Callable[[RunningJob], Callable[[], None]]
    ends_with: tuple[int, ...] | None
    explains: tuple[str, ...] = ()
    on_hosts: bool = False


LOST = ("has ended", "stopped by the launcher", "lost", "on signal 9")
FAULTS = {
    "kill": Fault(kill, None, LOST),
    "kill_node": Fault(kill_node, None),
    "pause": Fault(pause, (0,)),
    "hang": Fault(hang, None, ("no progress for", "nothing came within", *LOST)),
    "preempt": Fault(preempt, (75,), ("stopped by SIGUSR1 after step",)),
    "cut_network": Fault(
        cut_network, None, ("no progress for", "nothing came within", *LOST), True
    ),
    "fill_disk": Fault(fill_disk, (0, 1), ("No space left on device",)),
    "start_twice": Fault(start_twice, (0,)),
}

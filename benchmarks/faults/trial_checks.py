"""What must hold when a disturbed job has ended, and the disk that a trial fills."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.fault_injection import LARGE_DISK, Fault, rank_pids
from benchmarks.faults.fault_jobs import command_of, run, session_pids
from knet_hvd.checkpoint import CheckpointStore


def wait_until_gone(folder: Path, session: int) -> list[int]:
    """Give ranks and launchers some seconds to end; return those that do not."""
    deadline = time.monotonic() + 20
    while left := [*rank_pids(folder), *session_pids(session)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


def check_end(fault: Fault, code: int, text: str) -> None:
    """Raise AssertionError unless a job ended as it should."""
    right = code != 0 if fault.ends_with is None else code in fault.ends_with
    assert right, f"exit code {code}: {text[-2000:]}"
    words = " ".join(text.split())  # mpirun breaks its lines
    told = not fault.explains or any(reason in words for reason in fault.explains)
    assert told, f"no reason was given: {text[-2000:]}"
    assert "Traceback" not in text, text[-3000:]


def check_read_only_logs(job: str, folder: Path) -> None:
    """Raise AssertionError unless a job refuses a log directory it cannot write."""
    (folder / "logs").touch()  # root may write everywhere, but not below a file
    code, text = run(command_of(job, folder), folder / "output.txt")
    assert code not in (0, 75), f"exit code {code}"
    assert str(folder / "logs") in text, f"the directory is not named: {text[-2000:]}"
    assert "Traceback" not in text, text[-3000:]
    assert not CheckpointStore(folder / "disk" / "checkpoints").steps()


@contextmanager
def mounted_disk(folder: Path) -> Iterator[None]:
    """Have a disk of its own at a folder, so that filling it harms nobody else."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={LARGE_DISK}", "tmpfs", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)

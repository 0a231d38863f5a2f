"""What MPI says of itself."""

from dataclasses import dataclass

from mpi4py import MPI

_THREADS = {
    MPI.THREAD_SINGLE: "single",
    MPI.THREAD_FUNNELED: "funneled",
    MPI.THREAD_SERIALIZED: "serialized",
    MPI.THREAD_MULTIPLE: "multiple",
}


@dataclass(frozen=True, slots=True)
class MpiDescription:
    """Describe the MPI that this process uses.

    Attributes:
        library: The first part of the library's own version, such as
            ``"Open MPI v5.0.11"``.
        threads: Who may call it: ``"single"``, ``"funneled"``, ``"serialized"`` or
            ``"multiple"`` threads.
        num_ranks: Ranks of its world.
    """

    library: str
    threads: str
    num_ranks: int


def describe_mpi() -> MpiDescription:
    """Return what MPI says of itself."""
    library = MPI.Get_library_version().split(",")[0].splitlines()[0].strip("\0 ")
    threads = _THREADS[MPI.Query_thread()]
    return MpiDescription(library, threads, MPI.COMM_WORLD.Get_size())

"""What the installed Horovod can do."""

import horovod.torch as hvd

_FEATURES = ("mpi", "gloo", "nccl", "cuda")


def horovod_features() -> list[str]:
    """Return the features Horovod was built with, of mpi, gloo, nccl and cuda."""
    return [name for name in _FEATURES if getattr(hvd, f"{name}_built")()]


def horovod_mpi_threads() -> bool | None:
    """Return whether Horovod may share MPI with other threads; None without MPI.

    Starts Horovod, so every rank has to call it.
    """
    hvd.init()
    return bool(hvd.mpi_threads_supported()) if hvd.mpi_enabled() else None

"""What the installed Horovod can do."""

import horovod.torch as hvd

_FEATURES = ("mpi", "gloo", "nccl", "cuda")


def horovod_features() -> list[str]:
    """Return the features Horovod was built with, of mpi, gloo, nccl and cuda."""
    return [name for name in _FEATURES if getattr(hvd, f"{name}_built")()]

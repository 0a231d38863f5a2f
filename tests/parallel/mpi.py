"""What tests of the transport and of the pipeline share."""

import pytest

from knet_hvd.comm import World


def needs_mpi_ranks(number: int) -> pytest.MarkDecorator:
    """Skip with fewer ranks; with Horovod over Gloo each process is alone in MPI."""
    size = _size()
    return pytest.mark.skipif(size < number, reason=f"needs {number} ranks of MPI, got {size}")


def _size() -> int:
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.Get_size())


@pytest.fixture
def world():
    world = World(timeout_s=20.0)
    yield world
    world.close()

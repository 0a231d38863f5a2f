"""All checks of one rank, and of what ranks must have in common.

Checks are pure functions from facts to findings, so that tests can show each of them.
"""

from collections.abc import Sequence

from knet_hvd.doctor import device_checks, mpi_checks
from knet_hvd.doctor.facts import Facts
from knet_hvd.doctor.findings import Finding


def check_rank(facts: Facts, num_local: int) -> list[Finding]:
    """Return the findings of all checks of one rank, always in the same order.

    Args:
        facts: Of the rank.
        num_local: Ranks on its machine, this one among them.
    """
    return [
        mpi_checks.check_mpi(facts.mpi),
        mpi_checks.check_root(facts.machine),
        mpi_checks.check_mpi_threads(facts.mpi, facts.horovod),
        mpi_checks.check_horovod(facts.horovod),
        mpi_checks.check_same_mpi(facts.mpi, facts.horovod),
        device_checks.check_torch(facts, num_local),
        device_checks.check_gpu(facts),
        device_checks.check_gpu_copies(facts),
        device_checks.check_nccl(facts),
        device_checks.check_codec(facts.codec),
        device_checks.check_cuda_kernels(facts),
        device_checks.check_memory(facts, num_local),
        device_checks.check_leftovers(facts.machine),
    ]


def check_versions(versions: Sequence[dict[str, str]]) -> Finding:
    """Judge whether all ranks run the same software.

    Args:
        versions: Of each rank, by package.
    """
    for name, first in versions[0].items():
        for rank, other in enumerate(versions):
            if other[name] != first:
                return Finding(
                    "same versions",
                    "problem",
                    f"{name} is {first} on rank 0, {other[name]} on rank {rank}",
                    "have all nodes use one environment, on a disk that they share",
                )
    return Finding("same versions", "ok", "all ranks run the same software")

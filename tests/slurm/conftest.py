"""One Slurm cluster for all tests of this folder, if there can be one here."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.slurm.cluster import cluster, missing
from tests.slurm.submit import Slurm


@pytest.fixture(scope="session")
def slurm_environment() -> Iterator[dict[str, str]]:
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with cluster(num_nodes=2) as environment:
        yield environment


@pytest.fixture
def slurm(slurm_environment: dict[str, str], tmp_path: Path) -> Slurm:
    return Slurm(slurm_environment, tmp_path)

"""Makes the helpers importable for ``pytest`` without ``python -m``."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.system.launch import LIMIT_S


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist a folder of its own for temporary files.

    Open MPI's launchers share one session folder per host and user there, which the
    launcher that ends removes under the one that starts.
    """
    folder = tempfile.mkdtemp(prefix="knet-tests-")
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None  # read TMPDIR again
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests time for three jobs that hang: each job's own limit says what it printed."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(3 * LIMIT_S))

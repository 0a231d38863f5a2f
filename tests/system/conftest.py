"""Makes the helpers importable for ``pytest`` without ``python -m``."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))


def pytest_configure(config: pytest.Config) -> None:
    """Give each worker of pytest-xdist a folder of its own for temporary files.

    Open MPI's launchers share one session folder per host and user there, which the
    launcher that ends removes under the one that starts.
    """
    folder = tempfile.mkdtemp(prefix="knet-tests-")
    os.environ["TMPDIR"] = folder
    tempfile.tempdir = None  # read TMPDIR again
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))

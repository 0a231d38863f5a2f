"""One Horovod for all tests; a test that fails on one rank ends the run on all.

The rank whose test failed prints it, whatever its number, and leaves at once: the
launcher then ends the other ranks, which may wait for it in a collective. Ranks but 0
print nothing else.
"""

import os
import sys
from io import StringIO
from pathlib import Path

import pytest

os.environ.setdefault("HOROVOD_DYNAMIC_PROCESS_SETS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))  # for `pytest` without `python -m`

import horovod.torch as hvd
from _pytest.terminal import TerminalReporter

TELLING_SIZES = {
    "optimizer": {1, 2, 3, 4},  # exact for any number of ranks: odd, even, more than a pair
    "allreduce": {1, 2, 3, 4},
    "comm": {2, 4},
    "pipeline": {2, 4},  # first and last stage; stages between, and replicas. Alone: tests/system
    "training": {1, 2, 4},
    "usage": {1, 2},  # what a user's script does is the same on two ranks and on more
}
"""Folder -> numbers of ranks at which its tests say something that others do not."""

NEEDS_MPI = {"comm", "pipeline"}
"""Folders whose ranks find each other with mpi4py: under Gloo each would be alone."""

_failed_tests: list[str] = []


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    hvd.init()
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if hvd.rank() > 0 and reporter is not None:
        config.pluginmanager.unregister(reporter)
        config.pluginmanager.register(TerminalReporter(config, StringIO()), "terminalreporter")


def pytest_report_header() -> str:
    controller = "MPI" if hvd.mpi_enabled() else "Gloo"
    return f"Horovod over {controller}, rank {hvd.rank()} of {hvd.size()}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    own = [item for item in items if here in item.path.parents]
    # A rank that waits in a collective takes no signal: a thread shows where and exits.
    for item in own:
        item.add_marker(pytest.mark.timeout(method="thread"))
    if config.getoption("keyword"):  # who asks for a test by name gets it
        return
    silent = [item for item in own if not _is_telling(item.path.relative_to(here).parts[0])]
    config.hook.pytest_deselected(items=silent)
    items[:] = [item for item in items if item not in set(silent)]


def _is_telling(folder: str) -> bool:
    """Return whether a folder's tests are to run on this number of ranks."""
    if folder in NEEDS_MPI and not hvd.mpi_enabled():
        return False
    return hvd.size() in TELLING_SIZES.get(folder, {hvd.size()})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    report = yield
    if report.failed and Path(__file__).parent in item.path.parents:
        _failed_tests.append(item.nodeid)
        item.session.shouldfail = f"a test failed on rank {hvd.rank()}"
        if hvd.rank() > 0:
            print(
                f"\nrank {hvd.rank()}: {item.nodeid}\n{report.longreprtext}",
                file=sys.__stderr__,
                flush=True,
            )
    return report


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    if _failed_tests and hvd.size() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)  # Horovod's own exit would wait for the others

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

from tests.parallel.telling import GLOO, SLOW, telling_runs

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
    this_run = hvd.size() if hvd.mpi_enabled() else GLOO
    silent = set()
    for item in own:
        runs = telling_runs(item.nodeid.split("tests/parallel/")[-1])
        if SLOW in runs:
            item.add_marker(pytest.mark.slow)
        if this_run not in runs:
            silent.add(item)
    if config.getoption("keyword"):  # who asks for a test by name gets it
        return
    config.hook.pytest_deselected(items=[item for item in items if item in silent])
    items[:] = [item for item in items if item not in silent]


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

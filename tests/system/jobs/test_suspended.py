"""A job that is suspended as a whole, for longer than its time limit, continues."""

import os
import re
import signal
import sys
import time

from tests.system.launch import LIMIT_S, ROOT, mpirun, started

WORKER = [sys.executable, str(ROOT / "tests" / "system" / "workers" / "wait.py")]
SUSPENDED_S = 8.0


def test_it_continues() -> None:
    with started(mpirun(WORKER, WORKER)) as job:
        assert job.stdout is not None
        lines = [job.stdout.readline(), job.stdout.readline()]
        found = dict(re.findall(r"rank (\d) is process (\d+)", "".join(lines)))
        assert set(found) == {"0", "1"}, lines
        time.sleep(0.5)  # rank 0 waits for rank 1 now
        for process in found.values():
            os.kill(int(process), signal.SIGSTOP)
        time.sleep(SUSPENDED_S)
        for rank in ("0", "1"):  # the one that waits is the first to look at the time
            os.kill(int(found[rank]), signal.SIGCONT)
            time.sleep(0.2)
        out, err = job.communicate(timeout=LIMIT_S)
    assert job.returncode == 0, out + err
    assert "rank 0 is done" in out
    assert "rank 1 is done" in out

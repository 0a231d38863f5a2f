"""The watchdog ends what makes no progress, and nothing else."""

import queue
import time

import pytest

from knet_hvd.training.watchdog import Watchdog


def test_it_expires_once_without_progress() -> None:
    told: queue.Queue[str] = queue.Queue()
    with Watchdog(0.05, told.put):
        message = told.get(timeout=30)
        time.sleep(0.2)
    assert "no progress for 0.05 s" in message
    assert "--timeout-s" in message
    assert told.empty()


def test_progress_puts_it_off_and_leaving_ends_it() -> None:
    told: queue.Queue[str] = queue.Queue()
    with Watchdog(20.0, told.put) as watchdog:
        thread = watchdog._thread
        for _ in range(3):
            watchdog.progress()
    assert not thread.is_alive()  # it did not sleep on
    assert told.empty()


def test_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="expected > 0, got 0"):
        Watchdog(0, print)

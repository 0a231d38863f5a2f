"""One thread that reduces buckets in the order in which they came.

torch.distributed pairs operations by their order, which must be the same on all ranks.
Callbacks of its futures run in whatever order operations end, so ranks that continued there
would wait for each other for ever.
"""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread, current_thread
from typing import TypeAlias

import torch
from torch import Tensor

from knet_hvd.data_parallel.exchanges.base import Reduction
from knet_hvd.data_parallel.reducer.codec_stream import CallersStream
from knet_hvd.data_parallel.reducer.in_flight import InFlight
from knet_hvd.errors import KnetError

_MAX_UNDER_WAY = 2
"""While one bucket's codes cross, the scales of the next one do. Each holds memory."""

_STOP_LIMIT_S = 1.0


@dataclass(slots=True, eq=False)
class Job:
    """The reductions of one bucket of DistributedDataParallel.

    Attributes:
        reductions: Not started.
        finish: Called once they have ended; returns the bucket's means [n].
        future: Gets these, or the error.
    """

    reductions: Sequence[Reduction]
    finish: Callable[[], Tensor]
    future: torch.futures.Future[Tensor | Exception] = field(default_factory=torch.futures.Future)

    def fail(self, error: Exception) -> None:
        """Have the caller's backward raise an error.

        ``Future.set_exception`` is not seen by C++, where DistributedDataParallel waits.
        """
        self.future.set_result(error)


_Jobs: TypeAlias = "SimpleQueue[Job | None]"


class ReductionThread:
    """Run jobs in a thread, which ends with this object or with the process."""

    def __init__(self) -> None:
        """Start the thread."""
        self._jobs: _Jobs = SimpleQueue()
        thread = Thread(target=_run, args=(self._jobs,), name="knet_hvd", daemon=True)
        thread.start()
        weakref.finalize(self, _stop, self._jobs, thread)

    def submit(self, job: Job) -> torch.futures.Future[Tensor]:
        """Run a job after those before it; return its result to come."""
        result: torch.futures.Future[Tensor] = job.future.then(_value)
        self._jobs.put(job)
        return result


def _stop(jobs: _Jobs, thread: Thread) -> None:
    """End the thread, also at the end of the process.

    Python would end it within C++ code, which would abort the process. A thread that still
    waits for another rank does not come back to Python, and is left to the system.
    """
    jobs.put(None)
    if thread is not current_thread():
        thread.join(_STOP_LIMIT_S)


def _value(future: torch.futures.Future[Tensor | Exception]) -> Tensor:
    value = future.value()
    if isinstance(value, Exception):
        raise value
    return value


def _run(jobs: _Jobs) -> None:
    line = _Line(jobs)
    try:
        with torch.no_grad():
            while line.advance():
                pass
    except Exception as error:  # whatever it is, the user's own thread has to raise it
        line.fail_all(error)


class _Line:
    """Jobs that have come and not ended, in their order."""

    def __init__(self, jobs: _Jobs) -> None:
        self._jobs = jobs
        self._open: deque[Job] = deque()
        self._waiting: deque[tuple[Reduction, bool]] = deque()
        self._under_way: deque[tuple[InFlight, bool]] = deque()

    def advance(self) -> bool:
        """Start or end one reduction; return False once there will be no further job."""
        if not self._waiting and not self._take_job():
            return False
        if self._waiting and len(self._under_way) < _MAX_UNDER_WAY:
            reduction, is_last = self._waiting.popleft()
            self._under_way.append((InFlight.start(reduction, CallersStream()), is_last))
        else:
            self._end_oldest()
        return True

    def _take_job(self) -> bool:
        """Take a job, waiting for one if there is nothing else to do."""
        try:
            job = self._jobs.get(block=not self._under_way)
        except Empty:
            return True
        if job is None:
            return False
        self._open.append(job)
        last = len(job.reductions) - 1
        self._waiting.extend((each, i == last) for i, each in enumerate(job.reductions))
        return True

    def _end_oldest(self) -> None:
        bucket, is_last = self._under_way.popleft()
        while not bucket.is_done:
            bucket.wait()
        if is_last:
            job = self._open[0]
            result = job.finish()
            self._open.popleft()
            job.future.set_result(result)

    def fail_all(self, error: Exception) -> None:
        """Fail all jobs that are here or will come: ranks no longer have one order."""
        self._under_way.clear()
        for job in self._open:
            job.fail(error)
        while (job_to_come := self._jobs.get()) is not None:
            job_to_come.fail(KnetError(f"an earlier exchange of gradients has failed: {error}"))

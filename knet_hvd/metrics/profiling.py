"""Traces of where a training step's time goes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_FIRST_STEP = 10
_NUM_STEPS = 5


@contextmanager
def profile_steps(folder: Path | None, rank: int) -> Iterator[Callable[[], None]]:
    """Trace a few steps, once the first ones have warmed up caches and allocators.

    Writes ``rank<N>.json`` for Perfetto (ui.perfetto.dev) or chrome://tracing, with the
    ranges ``knet_hvd::statistics``, ``encode``, ``exchange`` (waiting for the network),
    ``sum`` and ``decode`` among PyTorch's operations. A run that ends before step 10
    writes nothing.

    Args:
        folder: Where to write, made if missing; None to trace nothing.
        rank: This rank.

    Yields:
        A function to call after every step.

    Raises:
        ValueError: If the folder cannot be made.
    """
    if folder is None:
        yield lambda: None
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"profile {folder} cannot be written ({error.strerror}): choose another"
        ) from error
    path = folder / f"rank{rank}.json"

    def write(profiler: torch.profiler.profile) -> None:
        unfinished = path.with_suffix(".json.part")
        profiler.export_chrome_trace(str(unfinished))
        unfinished.replace(path)

    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    schedule = torch.profiler.schedule(wait=_FIRST_STEP - 1, warmup=1, active=_NUM_STEPS, repeat=1)
    with torch.profiler.profile(
        activities=activities, schedule=schedule, on_trace_ready=write
    ) as profiler:
        yield profiler.step

"""Run a job whose last rank raises in step 3: raise_in_step.py JOB ERROR FLAGS..."""

import builtins
import os
import runpy
import sys
import time
from pathlib import Path

from torch import nn

_STEP = 3
job, error, *flags = sys.argv[1:]
forwards = 0


def fail(module: nn.Module, inputs: object, output: object) -> None:
    """Count the passes of a rank's last module; raise in one of them, on the last rank."""
    global forwards
    forwards += isinstance(module, nn.Linear) and module.training
    if forwards == _STEP and is_last_rank():
        sys.stdout.write(f"RAISING {time.time()}\n")
        sys.stdout.flush()
        raise getattr(builtins, error)("boom")


def is_last_rank() -> bool:
    """Return whether this is the last rank of Open MPI."""
    return os.environ["OMPI_COMM_WORLD_RANK"] == str(int(os.environ["OMPI_COMM_WORLD_SIZE"]) - 1)


nn.modules.module.register_module_forward_hook(fail)
path = Path(__file__).parents[3] / "jobs" / f"{job}.py"
sys.argv = [str(path), *flags]
runpy.run_path(str(path), run_name="__main__")

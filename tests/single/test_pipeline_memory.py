"""The memory meter, in a process whose memory nothing else moves."""

import subprocess
import sys

SCRIPT = """
import torch
from knet_hvd.pipeline.memory import MemoryMeter
torch.ones(3)
meter = MemoryMeter()
first = torch.ones(25 * 2**18)
del first
meter.restart_peak()
low = meter.peak_bytes
kept = torch.ones(10 * 2**18)
assert low < 5 * 2**20, low
assert 9 * 2**20 < meter.peak_bytes < 16 * 2**20, meter.peak_bytes
"""


def test_the_peak_is_that_since_the_restart() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True)

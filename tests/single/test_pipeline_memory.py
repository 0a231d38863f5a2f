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


RELEASE = """
import torch
from knet_hvd.pipeline.memory import MemoryMeter, release_freed_blocks
# A block that is freed raises the size from which the C library gives blocks back.
del (first := [torch.ones(5 * 2**18)])[:]
if release_freed_blocks(2**20):
    meter = MemoryMeter()
    blocks = [torch.ones(3 * 2**18) for _ in range(20)]
    del blocks[:-1]  # the last one would hold all of the heap below it
    resident = open("/proc/self/statm").read().split()[1]
    grown = int(resident) * 4096 - meter._start_bytes
    assert grown < 10 * 2**20, grown
"""


def test_freed_blocks_go_back() -> None:
    subprocess.run([sys.executable, "-c", RELEASE], check=True)

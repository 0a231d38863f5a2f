"""The memory meter, in a process whose memory nothing else moves."""

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional

from knet_hvd.models import build_model
from knet_hvd.pipeline.blocks.block_builder import BlockBuilder
from knet_hvd.pipeline.build import build_stage
from knet_hvd.pipeline.decouplers import Backprop
from knet_hvd.pipeline.loss_head import LossHead
from knet_hvd.pipeline.optimizers import named_optimizer
from knet_hvd.pipeline.spec import PipelineSpec
from knet_hvd.pipeline.stage import Batch, Stage

SCRIPT = """
import torch
from torch.nn import functional
from knet_hvd.metrics.process_memory import MemoryMeter
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
from torch.nn import functional
from knet_hvd.metrics.process_memory import MemoryMeter, release_freed_blocks
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


KEEP = """
import resource
import sys
import torch
from torch.nn import functional
from knet_hvd.metrics.process_memory import keep_freed_blocks

def step():
    blocks = [torch.ones(2**18) for _ in range(40)]

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

torch.ones(3)
if keep_freed_blocks():
    grown = []
    for _ in range(8):
        before = page_faults()
        step()
        grown.append(page_faults() - before)
    assert grown[0] > 40 * 250, grown  # 40 blocks of 256 pages
    assert sum(grown[1:]) < int(sys.argv[1]), grown
"""


@pytest.mark.parametrize(
    ("tcache_count", "most_pages"),
    [
        pytest.param(0, 100, id="without-the-cache-of-small-blocks"),
        # An aligned block leaves small ones before and after it. When these are freed, the C
        # library keeps up to 7 of a size at hand (tcache), and the large blocks beside them do
        # not join: a step may need as many new blocks, once, of 256 pages each.
        pytest.param(7, 2 * 7 * 256 + 100, id="with-7-small-blocks-of-a-size"),
    ],
)
def test_freed_blocks_are_kept(tcache_count: int, most_pages: int) -> None:
    """The seven steps after the first together take hardly any pages."""
    tunables = {**os.environ, "GLIBC_TUNABLES": f"glibc.malloc.tcache_count={tcache_count}"}
    subprocess.run([sys.executable, "-c", KEEP, str(most_pages)], check=True, env=tunables)


def trained(*, channels_last: bool) -> Stage:
    spec = PipelineSpec(
        builder=BlockBuilder(lambda: build_model("mnist8", in_shape=(1, 8, 8), num_classes=10)),
        example=torch.zeros(16, 1, 8, 8),
        loss=functional.cross_entropy,
        make_optimizer=lambda parameters: named_optimizer("momentum", parameters, 0.001),
        decoupler=Backprop(),
        channels_last=channels_last,
    )
    stage = build_stage(spec, (), 0)
    torch.manual_seed(3)
    for step in range(5):
        images, targets = torch.randn(16, 1, 8, 8), torch.randint(10, (16,))
        batch = Batch(step=step, targets=targets, inputs=images, num_samples=16)
        head = LossHead(spec.loss)
        head.forward(stage, batch)
        head.backward_now(stage, batch)
        stage.update()
    return stage


def test_the_layout_of_weights_does_not_change_what_is_learned() -> None:
    plain, other = trained(channels_last=False), trained(channels_last=True)
    first = next(m for m in other.blocks.modules() if isinstance(m, torch.nn.Conv2d))
    assert first.weight.is_contiguous(memory_format=torch.channels_last)
    for expected, actual in zip(plain.blocks.parameters(), other.blocks.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)

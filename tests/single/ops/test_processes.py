"""What a process does around the ops: it forks, or flushes subnormal numbers to zero."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import knet_hvd
from knet_hvd import ops

NUMEL = 300_000

FORK = """
import os, signal, torch
from knet_hvd import ops
torch.set_num_threads(4)
values = torch.linspace(-1, 1, 1_000_000)

def encode():
    scales = ops.scales([values], rule="rms", clip_factor=2.5)
    return ops.ternarize([values], scales, key=(1, 2, 3), streams=[4]).numpy().tobytes()

expected = encode()  # the pool's threads exist now, and no child will have them
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(0 if encode() == expected else 3)
status = os.waitpid(child, 0)[1]
assert os.waitstatus_to_exitcode(status) == 0, status
assert encode() == expected  # the parent's threads work as before
"""


@pytest.mark.skipif(not ops.is_loaded, reason="native library not built")
def test_a_forked_process_encodes() -> None:
    """With the library's own threads it would wait for ever: libgomp's pool is not forked."""
    root = str(Path(knet_hvd.__file__).parents[1])
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("KNET_", "OMP_"))}
    found = subprocess.run(
        [sys.executable, "-c", FORK],
        env={**environment, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert found.returncode == 0, found.stderr


@pytest.fixture
def restore_settings() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(num_threads)


def results(values: Tensor) -> list[Tensor]:
    moments = ops.statistics([values], 1280)
    found = [moments]
    for rule in ops.SCALE_RULES:
        scales = ops.scales([values], 1280, rule=rule)
        how = {"key": (1, 2, 3), "streams": [4], "scale_group_size": 1280}
        payload = ops.ternarize([values], scales, **how)
        out, sums = torch.empty_like(values), torch.empty(len(values), dtype=torch.int16)
        ops.unpack_sum(payload[None], "trit5", sums)
        ops.decode_mean(payload[None], scales, [out], divisor=3, scale_group_size=1280)
        again = torch.empty_like(values)
        ops.dequantize(sums, scales, [again], divisor=3, scale_group_size=1280)
        found += [scales, payload, out, again]
    return found


@pytest.mark.skipif(not ops.is_loaded, reason="the PyTorch kernels follow torch's mode")
@pytest.mark.parametrize("num_threads", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_subnormal_values_with_flush_to_zero(restore_settings, num_threads, dtype) -> None:
    """torch sets the mode of the calling thread; the kernels' bits do not depend on it."""
    values = (torch.linspace(-1e-40, 1e-40, NUMEL, dtype=torch.float64)).to(dtype)
    torch.set_num_threads(num_threads)
    expected = results(values)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such mode")
    found = results(values)
    one = torch.ones(1, dtype=torch.float32)
    is_flushing = bool((one * 1e-30 * 1e-12 == 0).item())
    torch.set_flush_denormal(False)
    assert is_flushing  # the caller's mode is left as it was
    assert bool(expected[1].any())
    for number, (left, right) in enumerate(zip(found, expected, strict=True)):
        bits = [t.view(torch.uint8).numpy().tobytes() for t in (left, right)]
        assert bits[0] == bits[1], number

"""The same bits from every instruction set, and from PyTorch alone.

This file is also the program that the tests run, once for each ``KNET_CPU``: it prints
the kernels in use and a hash of what all ops return. Its tensors end where a page does
that one follows which may not be touched, so that a kernel that continues crashes.
"""

import ctypes
import hashlib
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import knet_hvd
from knet_hvd import ops

NUMEL = (1, 127, 641, 1280, 4097)
PAGE, PROT_NONE = mmap.PAGESIZE, 0
SPECIAL = [0.0, -0.0, torch.nan, torch.inf, -torch.inf, 1e-45, -1e-40, 3e38, 0.5, -0.5]
_pages: list[mmap.mmap] = []


def at_the_end_of_a_page(tensor: Tensor) -> Tensor:
    """Return a copy whose last byte is the last one that may be read or written."""
    num_bytes = tensor.numel() * tensor.element_size()
    readable = -(-num_bytes // PAGE) * PAGE
    memory = mmap.mmap(-1, readable + PAGE)
    _pages.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    guard = ctypes.c_void_p(start + readable)
    assert ctypes.CDLL(None).mprotect(guard, PAGE, PROT_NONE) == 0
    copy = torch.frombuffer(
        memory, dtype=tensor.dtype, count=tensor.numel(), offset=readable - num_bytes
    )
    return copy.copy_(tensor.reshape(-1)).view(tensor.shape)


def make_values(numel: int, dtype: torch.dtype) -> Tensor:
    """Return a gradient made by integer arithmetic, the same everywhere."""
    index = torch.arange(numel, dtype=torch.int64)
    values = (index * 2654435761 % 65521).to(torch.float64) / 30000 - 1.1
    values[5::97] = torch.tensor(SPECIAL).double()[index[5::97] % len(SPECIAL)]
    return at_the_end_of_a_page(values.to(dtype))


def results(numel: int, dtype: torch.dtype, wire_format: ops.WireFormat) -> list[Tensor]:
    """Run every op on one gradient, in scale groups of 640."""
    values = make_values(numel, dtype)
    clean = torch.nan_to_num(values, nan=0.3, posinf=1.0, neginf=-1.0)
    scales = torch.linspace(0.0, 1.5, ops.num_scale_groups(numel, 640))
    scales = at_the_end_of_a_page(scales)
    found = [ops.statistics([clean], 640)]
    found += [ops.scales([clean], 640, rule=rule, clip_factor=2.5) for rule in ops.SCALE_RULES]
    room = torch.zeros(ops.payload_bytes(numel, wire_format), dtype=torch.uint8)
    how = {"scale_group_size": 640, "wire_format": wire_format}
    rows = [
        ops.ternarize(
            [values],
            scales,
            at_the_end_of_a_page(room),
            key=(1, rank, 3 << 33),
            streams=[2],
            stochastic=rank < 2,
            **how,
        ).clone()
        for rank in range(3)
    ]
    payloads = at_the_end_of_a_page(torch.stack(rows))
    sums = at_the_end_of_a_page(torch.zeros(numel, dtype=torch.int16))
    ops.unpack_sum(payloads, wire_format, sums)
    mean, again = (at_the_end_of_a_page(torch.zeros_like(values)) for _ in range(2))
    ops.decode_mean(payloads, scales, [mean], divisor=3, **how)
    ops.dequantize(sums, scales, [again], divisor=3, **how)
    digits = {"base": 7, "offset": 3, "num_digits": 22}
    words = torch.zeros(ops.num_words(numel, 22), dtype=torch.int64)
    words = ops.pack_digits(sums, words=at_the_end_of_a_page(words), **digits)
    back = at_the_end_of_a_page(torch.zeros_like(sums))
    ops.unpack_digits(words, back, **digits)
    return [*found, *rows, sums, mean, again, words, back]


def hash_of_everything() -> str:
    """Return a hash of all ops' results for all dtypes, formats and lengths."""
    digest = hashlib.sha256()
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for wire_format in ops.WIRE_FORMATS:
            for numel in NUMEL:
                for tensor in results(numel, dtype, wire_format):
                    flat = tensor.contiguous().view(-1).view(torch.uint8)
                    digest.update(flat.numpy().tobytes())
    return digest.hexdigest()


def run_program(**environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(knet_hvd.__file__).parents[1])
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("KNET_")}
    return subprocess.run(
        [sys.executable, __file__],
        env={**inherited, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.fixture(scope="module")
def pure_pytorch() -> subprocess.CompletedProcess[str]:
    return run_program(KNET_EXT="off")


def test_pure_pytorch_works_and_warns_once(pure_pytorch) -> None:
    assert pure_pytorch.returncode == 0, pure_pytorch.stderr
    assert pure_pytorch.stdout.split()[0] == "pytorch"
    assert pure_pytorch.stderr.count("knet_hvd: no native codec kernel for cpu") == 1


@pytest.mark.skipif(not ops.is_loaded, reason="native library not built")
@pytest.mark.parametrize("name", ["portable", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(name, pure_pytorch) -> None:
    found = run_program(KNET_CPU=name)
    if "this processor runs" in found.stderr:
        pytest.skip(found.stderr.strip().splitlines()[-1])
    assert found.returncode == 0, found.stderr
    assert found.stdout.split() == [name, pure_pytorch.stdout.split()[1]]
    assert "no native codec kernel" not in found.stderr


@pytest.mark.skipif(not ops.is_loaded, reason="native library not built")
def test_an_unknown_instruction_set_is_an_error() -> None:
    found = run_program(KNET_CPU="sse9")
    assert found.returncode == 1, found.stderr
    assert "KNET_CPU=sse9: this processor runs portable" in found.stderr


if __name__ == "__main__":
    sys.stdout.write(f"{ops.backend()} {hash_of_everything()}\n")

"""The peak memory of this process, and what becomes of memory that it frees."""

import contextlib
import ctypes
import gc
from pathlib import Path

import torch
from torch import nn

from knet_hvd.devices import CPU
from knet_hvd.devices.measuring import device_peak_bytes, restart_device_peak

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
"""Of mallopt, in malloc.h of the GNU C library."""
_LARGEST_KEPT = 32 * 2**20
"""Bytes; the library gives larger blocks back at once, whatever it is told."""


class MemoryMeter:
    """Measure how far resident memory grows from the moment this is made.

    What the process held before, such as the libraries, does not count. On a GPU it is the
    memory of tensors there that counts instead.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        """Begin at what is resident once the libraries have been used."""
        self._device = device
        _use_libraries()
        _give_back()
        self._start_bytes = _status_bytes("VmRSS")

    def restart_peak(self) -> None:
        """Forget earlier peaks, where the kernel permits it.

        What was freed goes back to the system first, such as blocks of other stages:
        the C library would keep some of it.
        """
        _give_back()
        with contextlib.suppress(OSError):
            _CLEAR.write_text(_RESET_PEAK)
        restart_device_peak(self._device)

    @property
    def peak_bytes(self) -> int:
        """Return the growth at the highest point, in bytes; 0 where there is no /proc.

        Before `restart_peak` that is the highest point of the process's whole life.
        """
        on_device = device_peak_bytes(self._device)
        if on_device is not None:
            return on_device
        return max(0, _status_bytes("VmHWM") - self._start_bytes)


def keep_freed_blocks() -> bool:
    """Have freed blocks kept for the next step, except those above 32 MB.

    The GNU C library gives the end of its memory back to the system whenever a step has
    freed enough of it; the next step takes as many pages again, and the system has to
    clear each of them. A stage of VGG-16 takes 11,000 pages a step, 8 % of its time.

    Returns:
        Whether the C library knows how to.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, -1))
    return False


def release_freed_blocks(above_bytes: int) -> bool:
    """Have freed blocks from some size on go back to the system at once.

    The GNU C library would keep blocks of up to 32 MB to use them again, and holes
    between them that nothing fits into: for convolutions with many channels, whose
    weights are copied into other layouts all the time, that is half of what is kept.
    Taking pages from the system again costs time.

    Args:
        above_bytes: The size.

    Returns:
        Whether the C library knows how to.
    """
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, above_bytes))
    return False


def _use_libraries() -> None:
    """Train a tiny network, so that code loaded on first use does not count later.

    That is about 100 MB, most of it imported with the first optimizer.
    """
    state = torch.get_rng_state()
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)]
    network = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, fused=True)
    network(torch.zeros(2, 1, 4, 4)).square().mean().backward()
    optimizer.step()
    torch.set_rng_state(state)


def _give_back() -> None:
    """Return freed memory to the system, where the C library can."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _status_bytes(name: str) -> int:
    """Return a number of the process's status, in bytes."""
    if not _STATUS.exists():
        return 0
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    return 0
